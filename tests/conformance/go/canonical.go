package main

import (
	"bytes"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
)

// Restricted canonical JSON: one way to write every payload.

const (
	maxInteger = 1<<53 - 1
	maxDepth   = 8
)

var mayBeEmpty = map[string]bool{
	"features": true, "fingerprints": true, "limits": true, "entries": true, "ext": true,
}

// parsePayload parses a payload and requires that writing it again gives the same bytes.
// Numbers come as int64.
func parsePayload(data []byte) (map[string]any, error) {
	value, err := parseJSON(data)
	if err != nil {
		return nil, err
	}
	if value, err = integers(value); err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("not an object")
	}
	var out bytes.Buffer
	if err := write(&out, object, 1); err != nil {
		return nil, err
	}
	if !bytes.Equal(out.Bytes(), data) {
		return nil, errors.New("not canonical")
	}
	return object, nil
}

// integers turns every number into an int64.
func integers(value any) (any, error) {
	var err error
	switch it := value.(type) {
	case numeral:
		number, err := strconv.ParseInt(string(it), 10, 64)
		if err != nil || number > maxInteger || number < -maxInteger {
			return nil, fmt.Errorf("the number %.40s", it)
		}
		return number, nil
	case []any:
		for i := range it {
			if it[i], err = integers(it[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for key := range it {
			if it[key], err = integers(it[key]); err != nil {
				return nil, err
			}
		}
	}
	return value, nil
}

func isEmpty(value any) bool {
	switch it := value.(type) {
	case []any:
		return len(it) == 0
	case map[string]any:
		return len(it) == 0
	}
	return false
}

func isKey(text string) bool {
	for i := 0; i < len(text); i++ {
		char := text[i]
		isLetter := char >= 'a' && char <= 'z'
		isOther := char == '_' || char >= '0' && char <= '9'
		if !isLetter && (i == 0 || !isOther) {
			return false
		}
	}
	return text != ""
}

func writeString(out *bytes.Buffer, text string) error {
	if text == "" {
		return errors.New("an empty string")
	}
	for _, letter := range text {
		if letter < 0x20 || letter >= 0x7f && letter <= 0x9f {
			return errors.New("a control character")
		}
	}
	out.WriteString(`"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(text) + `"`)
	return nil
}

func write(out *bytes.Buffer, value any, depth int) error {
	switch it := value.(type) {
	case bool:
		out.WriteString(strconv.FormatBool(it))
		return nil
	case int64:
		out.WriteString(strconv.FormatInt(it, 10))
		return nil
	case string:
		return writeString(out, it)
	case nil:
		return errors.New("null")
	}
	if depth > maxDepth {
		return errors.New("nested too deeply")
	}
	if list, ok := value.([]any); ok {
		return writeArray(out, list, depth)
	}
	return writeObject(out, value.(map[string]any), depth)
}

func writeArray(out *bytes.Buffer, list []any, depth int) error {
	separator := "["
	if len(list) == 0 {
		out.WriteString(separator)
	}
	for _, item := range list {
		if isEmpty(item) {
			return errors.New("an empty array or object")
		}
		out.WriteString(separator)
		separator = ","
		if err := write(out, item, depth+1); err != nil {
			return err
		}
	}
	out.WriteString("]")
	return nil
}

func writeObject(out *bytes.Buffer, object map[string]any, depth int) error {
	keys := make([]string, 0, len(object))
	for key := range object {
		keys = append(keys, key)
	}
	// Go compares bytes of UTF-8, which is the order by code point.
	sort.Strings(keys)
	separator := "{"
	if len(keys) == 0 {
		out.WriteString(separator)
	}
	for _, key := range keys {
		if !isKey(key) {
			return fmt.Errorf("the key %q", key)
		}
		if isEmpty(object[key]) && !mayBeEmpty[key] {
			return fmt.Errorf("%s is empty", key)
		}
		out.WriteString(separator + `"` + key + `":`)
		separator = ","
		if err := write(out, object[key], depth+1); err != nil {
			return err
		}
	}
	out.WriteString("}")
	return nil
}
