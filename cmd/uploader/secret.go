package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/perch-edge/perch/internal/credential"
)

// keys are what S3 knows a client by.
type keys struct{ access, secret, session string }

var errKeys = errors.New("want the keys of s3 in a file: access_key=…, secret_key=… and perhaps session_token=…, one a line; or the first two values alone")

// readKeys reads a file of keys: NAME=VALUE a line, or two bare lines.
func readKeys(name string) (keys, error) {
	text, err := credential.File(name)
	if err != nil {
		return keys{}, err
	}
	k, ok := bareKeys(string(text))
	if !ok {
		k, ok = namedKeys(string(text))
	}
	if !ok {
		return keys{}, fmt.Errorf("%s: %w", name, errKeys)
	}
	return k, nil
}

// bareKeys reads two words of which the first is no name. A secret key may have
// a "=" in it.
func bareKeys(text string) (k keys, ok bool) {
	words := strings.Fields(text)
	if len(words) != 2 || strings.Contains(words[0], "=") || words[1][0] == '=' {
		return keys{}, false
	}
	return keys{access: words[0], secret: words[1]}, true
}

// namedKeys reads lines of a name and a value, with spaces or none about the "=".
func namedKeys(text string) (k keys, ok bool) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if strings.ContainsAny(value, " \t") {
			return keys{}, false
		}
		switch name {
		case "access_key":
			k.access = value
		case "secret_key":
			k.secret = value
		case "session_token":
			k.session = value
		case "": // an empty line
		default:
			return keys{}, false
		}
	}
	return k, k.access != "" && k.secret != ""
}
