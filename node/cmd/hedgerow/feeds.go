package main

import "github.com/spf13/cobra"

func feedsCommand() *cobra.Command {
	c := &cobra.Command{Use: "feeds", Short: "The blocklists", Example: "  hedgerow feeds check bad.txt", GroupID: "daily", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(feedCheckCommand())
	return c
}
