package xdp

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -cflags "-O2 -g -Wall -Werror -mcpu=v3" -target bpfel -go-package xdp -output-suffix _test -no-global-types -type probe_job bulkprobe bpf/bulkprobe.c -- -Ibpf
