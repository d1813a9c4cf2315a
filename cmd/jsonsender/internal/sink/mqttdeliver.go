package sink

import (
	"context"
	"fmt"
	"time"
)

// delivery is one Deliver under way.
type delivery struct {
	*MQTT
	link    *link
	items   []Item
	results []Result
	acks    chan ack

	next     int          // what to send next
	underWay map[int]bool // what was sent and not acknowledged
	alone    bool         // what is under way is a suspect
	seen     int64        // bytes that had arrived when the broker was last waited for
	trouble  error        // why items are unknown that the broker answered
}

func (d *delivery) run(ctx context.Context) error {
	stall := time.NewTimer(d.o.Stall)
	defer stall.Stop()
	d.link.moved(&d.seen)
	for d.next < len(d.items) || len(d.underWay) > 0 {
		select {
		case <-d.link.broken:
			return d.broke()
		case d.mayPublish() <- struct{}{}:
			d.publish()
			continue
		default:
		}
		d.link.send(nil, true)
		select {
		case <-d.link.broken:
			return d.broke()
		case d.mayPublish() <- struct{}{}:
			d.publish()
		case a := <-d.acks:
			d.settle(a)
			stall.Reset(d.o.Stall)
		case <-stall.C:
			if d.link.moved(&d.seen) { // on a slow line what is sent may take longer
				stall.Reset(d.o.Stall)
			} else {
				d.link.fail(errStalled)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return d.trouble
}

// mayPublish is where to put a token before the next item is sent; nil while there is none, or
// while one is under way that goes alone, or that the next one has to wait for.
func (d *delivery) mayPublish() chan<- struct{} {
	switch {
	case d.next == len(d.items):
		return nil
	case len(d.underWay) > 0 && (d.alone || d.suspects[d.items[d.next].ID()]):
		return nil
	}
	return d.link.slots
}

func (d *delivery) publish() {
	i := d.next
	d.next++
	id := d.items[i].ID()
	d.alone = d.suspects[id]
	p := d.publication(&d.items[i])
	if err := d.link.publish(&p, id, waiter{acks: d.acks, index: i}, false); err != nil {
		d.results[i] = Result{Refused, err.Error()}
		return
	}
	d.underWay[i] = true
}

// settle takes what the broker answered. A reason under 0x80 is an acknowledgement: 0x10 says that
// nobody subscribes to the topic, which is the broker's business.
func (d *delivery) settle(a ack) {
	delete(d.underWay, a.index)
	delete(d.suspects, d.items[a.index].ID())
	d.guilty, d.ends = "", 0
	r := &refusal{a.code, a.reason}
	switch {
	case a.code < 0x80:
		d.results[a.index].State = Acknowledged
	case r.temporary():
		if d.trouble == nil {
			d.trouble = problem("publish "+d.items[a.index].ID(), r)
		}
	default:
		d.results[a.index] = Result{Refused, r.Error()}
	}
}

// broke settles what came before the link broke, and finds out whether a record is the cause: those
// under way then are sent one by one next time, until the connection ends at one of them.
func (d *delivery) broke() error {
	for len(d.acks) > 0 {
		d.settle(<-d.acks)
	}
	if perhaps, surely := aboutMessage(d.link.cause); perhaps {
		d.suspects = map[string]bool{}
		for i := range d.underWay {
			d.suspects[d.items[i].ID()] = true
			if len(d.underWay) == 1 {
				d.suspect(i, surely)
			}
		}
	}
	return d.lost(d.link)
}

// suspect refuses the one record under way, where it is surely the cause or the connection ended at
// it several times in a row.
func (d *delivery) suspect(i int, surely bool) {
	id := d.items[i].ID()
	if id != d.guilty {
		d.guilty, d.ends = id, 0
	}
	if d.ends++; surely || d.ends >= suspicions {
		d.results[i] = Result{Refused, fmt.Sprintf("the connection ended when this record was sent, %d bytes: %v", len(d.items[i].Body), d.link.cause)}
		d.guilty, d.ends = "", 0
	}
}
