//go:build race

package main

// raceDetector says that all is some times slower.
const raceDetector = true
