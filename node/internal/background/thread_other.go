//go:build !linux

package background

import "errors"

func isMain() bool { return false }

func lower() error { return errors.New("this system has no such priority that we know") }
