package main

import (
	"context"
	"errors"

	"github.com/perch-edge/perch/pkg/worker"
)

func run(context.Context, *worker.Worker, Config) error { return errors.New("no sink yet") }
