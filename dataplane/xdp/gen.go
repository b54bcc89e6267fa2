package xdp

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -cflags "-O2 -g -Wall -Werror -mcpu=v3" -target bpfel -go-package xdp -type event -type flow -type rule -type rule_key -type pair_key -type prefix_key -type never_key -type never -type flow_key -type config -type counters -type addr -type dns_answer -type query_key -type slot -type egg -type bucket -type seed -type flood_config -type flood_state -type flood_counts -type proof -type guarded -type bulk_head -type bulk_cell -type bulk_cell6 -type bulk_table kernel bpf/hedgerow.c -- -Ibpf
