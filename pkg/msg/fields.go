package msg

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// unquote reads a JSON string.
func unquote(value []byte) (text string, err error) {
	if value[0] == '"' && bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1]), nil
	}
	if value[0] != '"' { // null would pass as an empty string
		return "", errors.New("want a string")
	}
	err = json.Unmarshal(value, &text)
	return text, err
}

// field is one member of a JSON object, its value as it stands there.
type field struct{ key, value []byte }

// fields splits a valid JSON object into its members. Keys must be plain and
// stand once: encoding/json would take "Seq" for "seq" and the last of two,
// other languages would not, and no two readers may read one message differently.
func fields(raw []byte, all []field) ([]field, error) {
	rest := skip(raw, 0)
	if len(rest) == 0 || rest[0] != '{' {
		return nil, fmt.Errorf("%w: header is no JSON object", ErrMalformed)
	}
	for rest = skip(rest[1:], 0); rest[0] != '}'; rest = skip(rest, ',') {
		n := valueEnd(rest)
		key := rest[1 : n-1]
		if bytes.IndexByte(key, '\\') >= 0 {
			text, err := unquote(rest[:n])
			if err != nil {
				return nil, fmt.Errorf("%w: header key %.80s: %w", ErrMalformed, rest[:n], err)
			}
			key = []byte(text)
		}
		rest = skip(rest[n:], ':')
		n = valueEnd(rest)
		if err := plainKey(key, all); err != nil {
			return nil, err
		}
		all = append(all, field{key, rest[:n]})
		rest = rest[n:]
	}
	return all, nil
}

// skip leaves out space (RFC 8259 section 2), and the mark if it is not 0.
func skip(text []byte, mark byte) []byte {
	for i, c := range text {
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' && (c != mark || mark == 0) {
			return text[i:]
		}
	}
	return nil
}

func plainKey(key []byte, before []field) error {
	if len(key) == 0 {
		return fmt.Errorf("%w: empty header key", ErrMalformed)
	}
	for _, c := range key {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return fmt.Errorf("%w: header key %.80q: want a-z, 0-9 and _", ErrMalformed, key)
		}
	}
	for _, f := range before {
		if bytes.Equal(f.key, key) {
			return fmt.Errorf("%w: header key %.80q stands twice", ErrMalformed, key)
		}
	}
	if len(before) == maxKeys {
		return fmt.Errorf("%w: header of more than %d keys", ErrMalformed, maxKeys)
	}
	return nil
}

// valueEnd is the length of the JSON value that valid JSON text begins with.
func valueEnd(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
			if depth < 0 { // the end of the object around a number or a word
				return i
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return len(text)
}
