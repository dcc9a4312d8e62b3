// Command conformance verifies every vector: go run . DIRECTORY
//
// It prints the tc_id of each test that came out otherwise, then one summary line, and exits 1 on
// failures.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

type test struct {
	ID       string  `json:"tc_id"`
	Now      int64   `json:"now_at"`
	Options  options `json:"options"`
	Envelope []byte  `json:"envelope_b64"`
	Code     string  `json:"code"`
}

type options struct {
	Kind           string   `json:"kind"`
	Fingerprint    *string  `json:"fingerprint"`
	Floors         floors   `json:"floors"`
	Bundle         []byte   `json:"bundle_b64"`
	RequireCurrent bool     `json:"require_current_bundle"`
	InstanceKeyid  string   `json:"instance_keyid"`
	PublicKey      string   `json:"public_key_b64"`
	Update         bool     `json:"update"`
	Steps          [][]byte `json:"steps_b64"`
	License        []byte   `json:"license_b64"`

	Periods map[string]int64 `json:"periods"`
}

type group struct {
	Keyset []byte `json:"keyset_b64"`
	Tests  []test `json:"tests"`
}

// verify verifies a test's document as its options say.
func verify(keysetFile []byte, it test) error {
	held, err := verifyKeyset(keysetFile, it.Now)
	if err != nil {
		return fmt.Errorf("the group's keyset: %w", err)
	}
	asked := it.Options
	switch asked.Kind {
	case "license":
		_, err = verifyLicense(it.Envelope, held, it.Now, licenseOptions{
			fingerprint:    asked.Fingerprint,
			floors:         asked.Floors,
			bundle:         asked.Bundle,
			requireCurrent: asked.RequireCurrent,
		})
	case "lease":
		var lease *signed
		lease, err = verifyLease(it.Envelope, held, it.Now, asked.InstanceKeyid)
		if err == nil && asked.License != nil {
			err = verifyWithin(lease, asked.License, held, it.Now, asked.Periods)
		}
	case "revocation-bundle":
		floor := asked.Floors.BundleVersion
		_, err = verifyBundle(it.Envelope, held, it.Now, floor, asked.RequireCurrent)
	case "keyset":
		if asked.Update {
			_, err = verifyKeysetUpdate(it.Envelope, held, it.Now, asked.Steps)
		} else {
			_, err = verifyKeyset(it.Envelope, it.Now)
		}
	default:
		_, err = verifyRequest(asked.Kind, it.Envelope, asked.PublicKey)
	}
	return err
}

func run(directory string) (count, failures int, err error) {
	paths, err := filepath.Glob(filepath.Join(directory, "*.json"))
	if err != nil {
		return 0, 0, err
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return count, failures, err
		}
		var file struct {
			Groups []group `json:"groups"`
		}
		if err := json.Unmarshal(data, &file); err != nil {
			return count, failures, fmt.Errorf("%s: %w", path, err)
		}
		for _, group := range file.Groups {
			for _, it := range group.Tests {
				count++
				found := ""
				if err := verify(group.Keyset, it); err != nil {
					found = err.Error()
				}
				if found != it.Code {
					failures++
					fmt.Printf("%s: %q, not %q\n", it.ID, found, it.Code)
				}
			}
		}
	}
	return count, failures, nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run . DIRECTORY")
		os.Exit(2)
	}
	count, failures, err := run(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("go: %d tests, %d failed\n", count, failures)
	if failures > 0 || count == 0 {
		os.Exit(1)
	}
}
