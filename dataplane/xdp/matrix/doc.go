// Command matrix runs the tests of the kernel's packet path on other kernels
// than the one below it: Debian's cloud kernels of the oldest supported series
// and of the one most used, booted under an emulator. It proves that the
// committed programs pass each verifier and mean the same there.
//
// It is one program with two lives. On the machine it gets each kernel's
// package, builds the test binary, packs both with itself into an initramfs
// and boots that; inside, as process 1, it mounts what tests need, loads
// modules, runs the tests, says how each ended, and powers off. The machine's
// own kernel gets the same tests first, without an emulator.
//
//	go run ./dataplane/xdp/matrix             all kernels
//	go run ./dataplane/xdp/matrix -v 6.1      one, with its console
package main
