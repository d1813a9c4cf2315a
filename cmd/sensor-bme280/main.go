// Sensor-bme280 publishes the readings of a Bosch BME280: temperature,
// pressure and humidity of the air.
//
//	BME280 --I2C, forced mode--> plausible? --> rounded --> reading/<name>/<stream>
//
// It measures on demand only, at deadlines that do not drift, so that the chip
// does not heat itself. A value that is not plausible is published as null with
// its reason; a chip that does not answer is set up again, with growing
// pauses, and the state says so all the while. Without a chip at the start it
// exits with 69.
//
// With bus = "sim:" the chip is simulated at register level and everything
// above the bus is the same; "sensor-bme280 --example" prints all settings.
package main

import (
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

func main() {
	worker.Main(worker.Program[Config]{
		Name:      "sensor-bme280",
		Summary:   "Publishes temperature, pressure and humidity from a Bosch BME280.",
		Publishes: []msg.Kind{msg.KindReading},
		Stream:    "environment",
		Config:    DefaultConfig,
		Run:       run,
	})
}
