package spool

func contendChild(args []string) error { return nil }
func workChild(args []string) error    { return nil }
