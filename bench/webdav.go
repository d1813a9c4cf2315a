package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/webdav"
)

// webServerCommand is the receiver of files, the same for all: WebDAV over a
// folder in RAM, at a port of loopback that it tells first.
type webServerCommand struct {
	Dir string `required:"" help:"Where files go."`
}

// Run serves until stdin ends.
func (c *webServerCommand) Run(ctx context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: &webdav.Handler{FileSystem: webdav.Dir(c.Dir), LockSystem: webdav.NewMemLS()}, ReadHeaderTimeout: time.Minute}
	ctx, lines := orders(ctx)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	if err := answer(listener.Addr().String()); err != nil {
		return err
	}
	for ctx.Err() == nil {
		select {
		case <-lines:
		case <-ctx.Done():
		case err := <-done:
			return fmt.Errorf("serve files: %w", err)
		}
	}
	err = server.Close()
	if served := <-done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
