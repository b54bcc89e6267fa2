#include "textflag.h"

// Multiplication and addition are never fused here, and each sum is added up in the
// order that the plain Go has: equal bits are what these routines promise.

#define TILE_END(bytes, cols) \
	ADDQ $bytes, R8 \
	ADDQ $bytes, DX \
	SUBQ $cols, R9

#define TILE_START \
	MOVQ DX, AX \
	MOVQ SI, CX \
	MOVQ R10, BX

#define TILE_NEXT(loop) \
	ADDQ R13, CX \
	ADDQ R12, AX \
	DECQ BX \
	JNZ  loop

// func gemm(c, a, b *float32, m, n, k, ldc, ra, ca, ldb int)
TEXT ·gemm(SB), NOSPLIT, $0-80
	MOVQ c+0(FP), DI
	MOVQ a+8(FP), SI
	MOVQ k+40(FP), R10
	MOVQ m+24(FP), R11
	MOVQ ca+64(FP), R13
	MOVQ ldb+72(FP), R12
	SHLQ $2, R13
	SHLQ $2, R12

row:
	MOVQ b+16(FP), DX
	MOVQ DI, R8
	MOVQ n+32(FP), R9

tile32:
	CMPQ    R9, $32
	JLT     tile16
	VMOVUPS (R8), Y0
	VMOVUPS 32(R8), Y1
	VMOVUPS 64(R8), Y2
	VMOVUPS 96(R8), Y3
	TILE_START

loop32:
	VBROADCASTSS (CX), Y4
	VMULPS       (AX), Y4, Y5
	VMULPS       32(AX), Y4, Y6
	VMULPS       64(AX), Y4, Y7
	VMULPS       96(AX), Y4, Y8
	VADDPS       Y5, Y0, Y0
	VADDPS       Y6, Y1, Y1
	VADDPS       Y7, Y2, Y2
	VADDPS       Y8, Y3, Y3
	TILE_NEXT(loop32)
	VMOVUPS      Y0, (R8)
	VMOVUPS      Y1, 32(R8)
	VMOVUPS      Y2, 64(R8)
	VMOVUPS      Y3, 96(R8)
	TILE_END(128, 32)
	JMP          tile32

tile16:
	CMPQ    R9, $16
	JLT     tile8
	VMOVUPS (R8), Y0
	VMOVUPS 32(R8), Y1
	TILE_START

loop16:
	VBROADCASTSS (CX), Y4
	VMULPS       (AX), Y4, Y5
	VMULPS       32(AX), Y4, Y6
	VADDPS       Y5, Y0, Y0
	VADDPS       Y6, Y1, Y1
	TILE_NEXT(loop16)
	VMOVUPS      Y0, (R8)
	VMOVUPS      Y1, 32(R8)
	TILE_END(64, 16)

tile8:
	CMPQ    R9, $8
	JLT     tile4
	VMOVUPS (R8), Y0
	TILE_START

loop8:
	VBROADCASTSS (CX), Y4
	VMULPS       (AX), Y4, Y5
	VADDPS       Y5, Y0, Y0
	TILE_NEXT(loop8)
	VMOVUPS      Y0, (R8)
	TILE_END(32, 8)

tile4:
	CMPQ    R9, $4
	JLT     tile1
	VMOVUPS (R8), X0
	TILE_START

loop4:
	VBROADCASTSS (CX), X4
	VMULPS       (AX), X4, X5
	VADDPS       X5, X0, X0
	TILE_NEXT(loop4)
	VMOVUPS      X0, (R8)
	TILE_END(16, 4)

tile1:
	TESTQ  R9, R9
	JZ     rowEnd
	VMOVSS (R8), X0
	TILE_START

loop1:
	VMOVSS (CX), X4
	VMULSS (AX), X4, X5
	VADDSS X5, X0, X0
	TILE_NEXT(loop1)
	VMOVSS X0, (R8)
	TILE_END(4, 1)
	JMP    tile1

rowEnd:
	MOVQ ldc+48(FP), AX
	LEAQ (DI)(AX*4), DI
	MOVQ ra+56(FP), AX
	LEAQ (SI)(AX*4), SI
	DECQ R11
	JNZ  row
	VZEROUPPER
	RET

// func dots(c, a, b *float32, m, n, k, ldc, lda, ldb int)
//
// Sums as gonum's DotUnitary does: singly up to where b is aligned to 16 bytes,
// then in two times four.
TEXT ·dots(SB), NOSPLIT, $0-72
	MOVQ c+0(FP), DI
	MOVQ a+8(FP), SI
	MOVQ m+24(FP), R11

dotsRow:
	MOVQ b+16(FP), R8
	MOVQ DI, R12
	MOVQ n+32(FP), R9

dot:
	VXORPS X0, X0, X0
	MOVQ   k+40(FP), CX
	XORQ   AX, AX
	MOVQ   R8, DX
	ANDQ   $0xF, DX
	JZ     aligned
	SUBQ   $16, DX

head:
	VMOVSS (SI)(AX*4), X2
	VMULSS (R8)(AX*4), X2, X2
	VADDSS X2, X0, X0
	INCQ   AX
	DECQ   CX
	JZ     dotEnd
	ADDQ   $4, DX
	JNZ    head

aligned:
	VXORPS X1, X1, X1
	MOVQ   CX, BX
	ANDQ   $0xF, BX
	SHRQ   $4, CX
	JZ     fours

loopSixteen:
	VMOVUPS (SI)(AX*4), X2
	VMOVUPS 16(SI)(AX*4), X3
	VMOVUPS 32(SI)(AX*4), X4
	VMOVUPS 48(SI)(AX*4), X5
	VMULPS  (R8)(AX*4), X2, X2
	VMULPS  16(R8)(AX*4), X3, X3
	VMULPS  32(R8)(AX*4), X4, X4
	VMULPS  48(R8)(AX*4), X5, X5
	VADDPS  X2, X0, X0
	VADDPS  X3, X1, X1
	VADDPS  X4, X0, X0
	VADDPS  X5, X1, X1
	ADDQ    $16, AX
	DECQ    CX
	JNZ     loopSixteen
	VADDPS  X1, X0, X0

fours:
	MOVQ BX, CX
	SHRQ $2, CX
	JZ   ones

four:
	VMOVUPS (SI)(AX*4), X2
	VMULPS  (R8)(AX*4), X2, X2
	VADDPS  X2, X0, X0
	ADDQ    $4, AX
	DECQ    CX
	JNZ     four

ones:
	ANDQ $3, BX
	JZ   dotEnd

one:
	VMOVSS (SI)(AX*4), X2
	VMULSS (R8)(AX*4), X2, X2
	VADDSS X2, X0, X0
	INCQ   AX
	DECQ   BX
	JNZ    one

dotEnd:
	VHADDPS X0, X0, X0
	VHADDPS X0, X0, X0
	VADDSS  (R12), X0, X0
	VMOVSS  X0, (R12)
	ADDQ    $4, R12
	MOVQ    ldb+64(FP), AX
	LEAQ    (R8)(AX*4), R8
	DECQ    R9
	JNZ     dot
	MOVQ    ldc+48(FP), AX
	LEAQ    (DI)(AX*4), DI
	MOVQ    lda+56(FP), AX
	LEAQ    (SI)(AX*4), SI
	DECQ    R11
	JNZ     dotsRow
	VZEROUPPER
	RET

// func rectify(x *float32, n int)
TEXT ·rectify(SB), NOSPLIT, $0-16
	MOVQ   x+0(FP), DI
	MOVQ   n+8(FP), CX
	VXORPS Y1, Y1, Y1

rectifyLoop:
	VMOVUPS (DI), Y0
	VMAXPS  Y0, Y1, Y0
	VMOVUPS Y0, (DI)
	ADDQ    $32, DI
	SUBQ    $8, CX
	JG      rectifyLoop
	VZEROUPPER
	RET

DATA eight<>+0(SB)/4, $8.0
GLOBL eight<>(SB), RODATA|NOPTR, $4
DATA minusEight<>+0(SB)/4, $-8.0
GLOBL minusEight<>(SB), RODATA|NOPTR, $4
DATA sixteen<>+0(SB)/4, $16.0
GLOBL sixteen<>(SB), RODATA|NOPTR, $4
DATA unit<>+0(SB)/4, $1.0
GLOBL unit<>(SB), RODATA|NOPTR, $4
DATA steps<>+0(SB)/4, $0x10101010
GLOBL steps<>(SB), RODATA|NOPTR, $4
DATA pairs<>+0(SB)/4, $0x00010001
GLOBL pairs<>(SB), RODATA|NOPTR, $4

// func standard(z *[80]float32, q *[80]byte, x *float32, known *[80]byte, mean, inv, flip *[80]float32)
TEXT ·standard(SB), NOSPLIT, $0-56
	MOVQ         z+0(FP), DI
	MOVQ         q+8(FP), SI
	MOVQ         x+16(FP), DX
	MOVQ         known+24(FP), R8
	MOVQ         mean+32(FP), R9
	MOVQ         inv+40(FP), R10
	MOVQ         flip+48(FP), R11
	VBROADCASTSS eight<>(SB), Y15
	VBROADCASTSS minusEight<>(SB), Y14
	VBROADCASTSS sixteen<>(SB), Y13
	XORQ         AX, AX

standardLoop:
	VPMOVSXBD    (R8)(AX*1), Y1
	VMASKMOVPS   (DX)(AX*4), Y1, Y0
	VSUBPS       (R9)(AX*4), Y0, Y0
	VMULPS       (R10)(AX*4), Y0, Y0
	VMAXPS       Y0, Y14, Y0
	VMINPS       Y0, Y15, Y0
	VPAND        Y1, Y0, Y0
	VMOVUPS      Y0, (DI)(AX*4)
	VXORPS       (R11)(AX*4), Y0, Y0
	VADDPS       Y15, Y0, Y0
	VMULPS       Y13, Y0, Y0
	VCVTPS2DQ    Y0, Y0
	VPACKUSDW    Y0, Y0, Y0
	VPACKUSWB    Y0, Y0, Y0
	VEXTRACTI128 $1, Y0, X2
	VMOVD        X0, (SI)(AX*1)
	VMOVD        X2, 4(SI)(AX*1)
	ADDQ         $8, AX
	CMPQ         AX, $80
	JNE          standardLoop
	VZEROUPPER
	RET

// func residuals(e, q *[80]float32, y, z *[80]float32, known *[80]byte, side, trust *[80]float32)
TEXT ·residuals(SB), NOSPLIT, $0-56
	MOVQ   e+0(FP), DI
	MOVQ   q+8(FP), SI
	MOVQ   y+16(FP), DX
	MOVQ   z+24(FP), CX
	MOVQ   known+32(FP), R8
	MOVQ   side+40(FP), R9
	MOVQ   trust+48(FP), R10
	VXORPS Y15, Y15, Y15
	XORQ   AX, AX

residualsLoop:
	VPMOVSXBD (R8)(AX*1), Y1
	VMOVUPS   (DX)(AX*4), Y0
	VSUBPS    (CX)(AX*4), Y0, Y0
	VMULPS    (R9)(AX*4), Y0, Y2
	VCMPPS    $2, Y15, Y2, Y2
	VANDPS    Y1, Y2, Y2
	VANDPS    Y2, Y0, Y0
	VMOVUPS   Y0, (DI)(AX*4)
	VMULPS    Y0, Y0, Y0
	VMULPS    (R10)(AX*4), Y0, Y0
	VMOVUPS   Y0, (SI)(AX*4)
	ADDQ      $8, AX
	CMPQ      AX, $80
	JNE       residualsLoop
	VZEROUPPER
	RET

// func terms(t *Row, q *Query, ref, keep, flip, context *Row)
TEXT ·terms(SB), NOSPLIT, $0-48
	MOVQ         t+0(FP), DI
	MOVQ         q+8(FP), SI
	MOVQ         ref+16(FP), R8
	MOVQ         keep+24(FP), R9
	MOVQ         flip+32(FP), R10
	MOVQ         context+40(FP), R11
	VXORPS       Y15, Y15, Y15
	VBROADCASTSS unit<>(SB), Y14
	VBROADCASTSS 248(SI), Y13
	VBROADCASTSS 252(SI), Y12
	XORQ         AX, AX

termsLoop:
	VPMOVSXBD 256(SI)(AX*1), Y4
	VMOVUPS   (R11)(AX*4), Y5
	VBLENDVPS Y5, Y12, Y13, Y5
	VMOVUPS   336(SI)(AX*4), Y0
	VSUBPS    (R8)(AX*4), Y0, Y0
	VANDPS    (R9)(AX*4), Y0, Y0
	VXORPS    (R10)(AX*4), Y0, Y0
	VMAXPS    Y0, Y15, Y0
	VMINPS    Y0, Y14, Y1
	VADDPS    Y0, Y0, Y2
	VSUBPS    Y1, Y2, Y2
	VMULPS    Y1, Y2, Y2
	VMULPS    Y5, Y2, Y2
	VANDPS    Y4, Y2, Y2
	VMOVUPS   Y2, (DI)(AX*4)
	ADDQ      $8, AX
	CMPQ      AX, $80
	JNE       termsLoop
	VZEROUPPER
	RET

// The difference in Y3, less what rounding may have made of it or, where the feature
// is unknown, all of it; then min(d, 1 unit) * (2 d - min(d, 1 unit)), added to Y0.
#define HUBER(sub) \
	VPBROADCASTD sub, Y5 \
	VPSUBUSB Y5, Y3, Y3 \
	VPMINUB Y15, Y3, Y4 \
	VPSUBB Y4, Y3, Y5 \
	VPADDUSB Y5, Y3, Y5 \
	VPMADDUBSW Y4, Y5, Y6 \
	VPADDW Y6, Y0, Y0

// Sums of pairs in 16 bits overflow after more than four groups.
#define FOLD(to) \
	VPMADDWD Y14, Y0, Y0 \
	VPADDD Y0, to, to \
	VPXOR Y0, Y0, Y0

#define OWN(g) \
	VPBROADCASTD (4*g)(SI), Y1 \
	VMOVDQU (32*g)(DI), Y2 \
	VPSUBUSB Y2, Y1, Y3 \
	VPSUBUSB Y1, Y2, Y4 \
	VPOR Y4, Y3, Y3 \
	HUBER((80+4*g)(SI))

#define CTX(g) \
	VPBROADCASTD (4*g)(SI), Y1 \
	VPSUBUSB (32*g)(DI), Y1, Y3 \
	HUBER((160+4*g)(SI))

#define OWN_BOX(g) \
	VPBROADCASTD (4*g)(SI), Y1 \
	VMOVDQU (640+32*g)(DI), Y2 \
	VPSUBUSB (32*g)(DI), Y1, Y3 \
	VPSUBUSB Y1, Y2, Y4 \
	VPOR Y4, Y3, Y3 \
	HUBER((80+4*g)(SI))

#define START \
	VPBROADCASTD steps<>(SB), Y15 \
	VPBROADCASTD pairs<>(SB), Y14 \
	VBROADCASTSS 240(SI), Y12 \
	VBROADCASTSS 244(SI), Y13 \
	VPXOR Y0, Y0, Y0 \
	VPXOR Y7, Y7, Y7 \
	VPXOR Y8, Y8, Y8

// The bounds of the moment in Y1; those at most Y11 in AX.
#define WEIGH \
	VCVTDQ2PS Y7, Y1 \
	VCVTDQ2PS Y8, Y2 \
	VMULPS Y12, Y1, Y1 \
	VMULPS Y13, Y2, Y2 \
	VADDPS Y2, Y1, Y1

#define BELOW \
	VCMPPS $2, Y11, Y1, Y2 \
	VMOVMSKPS Y2, AX \
	TESTL AX, AX

// func block(out *[8]float32, refs *Block, q *Query, limit float32) uint32
TEXT ·block(SB), NOSPLIT, $0-36
	MOVQ         refs+8(FP), DI
	MOVQ         q+16(FP), SI
	VBROADCASTSS limit+24(FP), Y11
	START
	CTX(15)
	CTX(16)
	CTX(17)
	CTX(18)
	FOLD(Y8)
	CTX(14)
	FOLD(Y8)
	OWN(0)
	OWN(1)
	OWN(2)
	OWN(3)
	FOLD(Y7)
	WEIGH
	BELOW
	JZ           blockEnd
	OWN(4)
	OWN(5)
	OWN(6)
	OWN(7)
	FOLD(Y7)
	WEIGH
	BELOW
	JZ           blockEnd
	OWN(8)
	OWN(9)
	OWN(10)
	OWN(11)
	FOLD(Y7)
	OWN(12)
	OWN(13)
	OWN(14)
	FOLD(Y7)
	WEIGH
	BELOW

blockEnd:
	MOVQ    out+0(FP), DX
	VMOVUPS Y1, (DX)
	MOVL    AX, ret+32(FP)
	VZEROUPPER
	RET

// func boxes(out *[8]float32, b *Boxes, q *Query)
TEXT ·boxes(SB), NOSPLIT, $0-24
	MOVQ    b+8(FP), DI
	MOVQ    q+16(FP), SI
	START
	CTX(15)
	CTX(16)
	CTX(17)
	CTX(18)
	FOLD(Y8)
	CTX(14)
	FOLD(Y8)
	OWN_BOX(0)
	OWN_BOX(1)
	OWN_BOX(2)
	OWN_BOX(3)
	FOLD(Y7)
	OWN_BOX(4)
	OWN_BOX(5)
	OWN_BOX(6)
	OWN_BOX(7)
	FOLD(Y7)
	OWN_BOX(8)
	OWN_BOX(9)
	OWN_BOX(10)
	OWN_BOX(11)
	FOLD(Y7)
	OWN_BOX(12)
	OWN_BOX(13)
	OWN_BOX(14)
	FOLD(Y7)
	WEIGH
	MOVQ    out+0(FP), DX
	VMOVUPS Y1, (DX)
	VZEROUPPER
	RET
