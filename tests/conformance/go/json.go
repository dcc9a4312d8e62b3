package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Strict JSON, as the signed documents ask for it. encoding/json is not strict enough: it takes the
// last of two equal keys, matches keys whatever their case, and mends bytes that are not UTF-8.

// A value is nil, bool, string, numeral, []any, or map[string]any.

// numeral is a number as it stands in the text.
type numeral string

// maxNesting is the deepest nesting that is read at all; payloads may have 8, envelopes have 3.
const maxNesting = 64

type parser struct {
	text string
	at   int
}

// parseJSON parses UTF-8 text without a byte order mark; no object may have the same key twice.
func parseJSON(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	p := &parser{text: string(data)}
	value, err := p.value(1)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.at != len(p.text) {
		return nil, p.failed("something follows the value")
	}
	return value, nil
}

func (p *parser) failed(what string) error {
	return fmt.Errorf("%s at byte %d", what, p.at)
}

// peek returns the next byte, or 0 at the end. NUL itself has no place in JSON.
func (p *parser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

func (p *parser) take(char byte) error {
	if p.at >= len(p.text) || p.text[p.at] != char {
		return p.failed("expected " + string(char))
	}
	p.at++
	return nil
}

func (p *parser) value(depth int) (any, error) {
	if depth > maxNesting {
		return nil, p.failed("nested too deeply")
	}
	p.space()
	switch p.peek() {
	case '{':
		return p.object(depth)
	case '[':
		return p.array(depth)
	case '"':
		return p.str()
	}
	for word, value := range map[string]any{"true": true, "false": false, "null": nil} {
		if strings.HasPrefix(p.text[p.at:], word) {
			p.at += len(word)
			return value, nil
		}
	}
	return p.number()
}

func (p *parser) object(depth int) (any, error) {
	value := map[string]any{}
	p.at++
	p.space()
	if p.peek() == '}' {
		p.at++
		return value, nil
	}
	for {
		p.space()
		key, err := p.str()
		if err != nil {
			return nil, err
		}
		if _, present := value[key]; present {
			return nil, p.failed("the same key twice")
		}
		p.space()
		if err := p.take(':'); err != nil {
			return nil, err
		}
		if value[key], err = p.value(depth + 1); err != nil {
			return nil, err
		}
		p.space()
		if p.peek() == '}' {
			p.at++
			return value, nil
		}
		if err := p.take(','); err != nil {
			return nil, err
		}
	}
}

func (p *parser) array(depth int) (any, error) {
	value := []any{}
	p.at++
	p.space()
	if p.peek() == ']' {
		p.at++
		return value, nil
	}
	for {
		item, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		value = append(value, item)
		p.space()
		if p.peek() == ']' {
			p.at++
			return value, nil
		}
		if err := p.take(','); err != nil {
			return nil, err
		}
	}
}

func (p *parser) str() (string, error) {
	if err := p.take('"'); err != nil {
		return "", err
	}
	var out strings.Builder
	for p.at < len(p.text) {
		char := p.text[p.at]
		p.at++
		switch {
		case char == '"':
			return out.String(), nil
		case char < 0x20:
			return "", p.failed("a control character in a string")
		case char != '\\':
			out.WriteByte(char)
		default:
			letter, err := p.escape()
			if err != nil {
				return "", err
			}
			out.WriteRune(letter)
		}
	}
	return "", p.failed("the end inside a string")
}

// escape reads what follows a backslash: one code point, in one escape or in a surrogate pair.
func (p *parser) escape() (rune, error) {
	char := p.peek()
	p.at++
	if plain := strings.IndexByte(`"\/bfnrt`, char); char != 0 && plain >= 0 {
		return rune("\"\\/\b\f\n\r\t"[plain]), nil
	}
	if char != 'u' {
		return 0, p.failed("bad escape")
	}
	first, err := p.unit()
	if err != nil || !utf16.IsSurrogate(first) {
		return first, err
	}
	if !strings.HasPrefix(p.text[p.at:], `\u`) {
		return 0, p.failed("half of a surrogate pair")
	}
	p.at += 2
	second, err := p.unit()
	if err != nil {
		return 0, err
	}
	letter := utf16.DecodeRune(first, second)
	if letter == utf8.RuneError {
		return 0, p.failed("half of a surrogate pair")
	}
	return letter, nil
}

// unit reads four hex digits.
func (p *parser) unit() (rune, error) {
	if p.at+4 > len(p.text) {
		return 0, p.failed("bad escape")
	}
	digits := p.text[p.at : p.at+4]
	if strings.Trim(digits, "0123456789abcdefABCDEF") != "" {
		return 0, p.failed("bad escape")
	}
	unit, err := strconv.ParseUint(digits, 16, 16)
	p.at += 4
	return rune(unit), err
}

func (p *parser) number() (any, error) {
	start := p.at
	if p.peek() == '-' {
		p.at++
	}
	if p.peek() == '0' {
		p.at++
	} else if !p.digits() {
		return nil, p.failed("no JSON value")
	}
	if p.peek() == '.' {
		p.at++
		if !p.digits() {
			return nil, p.failed("no digit after the point")
		}
	}
	if p.peek() == 'e' || p.peek() == 'E' {
		p.at++
		if p.peek() == '+' || p.peek() == '-' {
			p.at++
		}
		if !p.digits() {
			return nil, p.failed("no digit in the exponent")
		}
	}
	return numeral(p.text[start:p.at]), nil
}

// digits reads one digit or more.
func (p *parser) digits() bool {
	start := p.at
	for p.peek() >= '0' && p.peek() <= '9' {
		p.at++
	}
	return p.at > start
}
