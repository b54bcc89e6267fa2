package xdp

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -cflags "-O2 -g -Wall -Werror -mcpu=v3" -target bpfel -go-package xdp -type event -type flow -type rule -type rule_key -type pair_key -type prefix_key -type never_key -type never -type flow_key -type config -type counters -type addr kernel bpf/hedgerow.c -- -Ibpf
