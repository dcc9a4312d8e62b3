package main

import (
	"fmt"
	"regexp"
	"sort"
	"strings"
)

// The shape of every payload. A rule says what is wrong with a value, or nil.

type rule func(value any) error

type object = map[string]any

func wrong(format string, values ...any) error { return fmt.Errorf(format, values...) }

// matching wants a whole string of this pattern. \z is the very end, $ might be before a newline.
func matching(pattern string) rule {
	compiled := regexp.MustCompile(`\A(?:` + pattern + `)\z`)
	return func(value any) error {
		if text, ok := value.(string); !ok || !compiled.MatchString(text) {
			return wrong("%v is not %s", value, pattern)
		}
		return nil
	}
}

func integerFrom(lowest int64) rule {
	return func(value any) error {
		if number, ok := value.(int64); !ok || number < lowest {
			return wrong("%v is not an integer >= %d", value, lowest)
		}
		return nil
	}
}

func oneOf(allowed ...any) rule {
	return func(value any) error {
		for _, each := range allowed {
			if value == each {
				return nil
			}
		}
		return wrong("%v is not allowed", value)
	}
}

func arrayOf(item rule) rule {
	return func(value any) error {
		list, ok := value.([]any)
		if !ok {
			return wrong("an array is wanted")
		}
		for _, each := range list {
			if err := item(each); err != nil {
				return err
			}
		}
		return nil
	}
}

// sortedBy wants an array whose items rise by key, none twice.
func sortedBy(item rule, key func(any) string) rule {
	each := arrayOf(item)
	return func(value any) error {
		if err := each(value); err != nil {
			return err
		}
		list := value.([]any)
		for i := 1; i < len(list); i++ {
			if key(list[i-1]) >= key(list[i]) {
				return wrong("not sorted, or something stands twice")
			}
		}
		return nil
	}
}

func itself(value any) string { return value.(string) }

// fields are the members of an object; one whose name ends in ? may be missing.
type fields map[string]rule

// with returns these fields and more.
func (f fields) with(more fields) fields {
	all := fields{}
	for _, each := range []fields{f, more} {
		for key, value := range each {
			all[key] = value
		}
	}
	return all
}

// objectOf wants exactly these members, and what the checks ask of them together.
func objectOf(members fields, checks ...func(object) error) rule {
	known := map[string]rule{}
	var required []string
	for key, value := range members {
		bare := strings.TrimSuffix(key, "?")
		known[bare] = value
		if bare == key {
			required = append(required, key)
		}
	}
	sort.Strings(required)
	return func(value any) error {
		it, ok := value.(object)
		if !ok {
			return wrong("an object is wanted")
		}
		for _, key := range required {
			if _, present := it[key]; !present {
				return wrong("%s is missing", key)
			}
		}
		for key, item := range it {
			check, present := known[key]
			if !present {
				return wrong("%s is unknown", key)
			}
			if err := check(item); err != nil {
				return err
			}
		}
		for _, check := range checks {
			if err := check(it); err != nil {
				return err
			}
		}
		return nil
	}
}

// rising wants first < second, or first <= second where they may be equal.
func rising(first, second string, mayBeEqual bool) func(object) error {
	return func(it object) error {
		a, b := it[first].(int64), it[second].(int64)
		if a > b || a == b && !mayBeEqual {
			return wrong("%s must come after %s", second, first)
		}
		return nil
	}
}

func unless(broken func(object) bool, what string) func(object) error {
	return func(it object) error {
		if broken(it) {
			return wrong("%s", what)
		}
		return nil
	}
}

func has(it object, key string) bool {
	_, present := it[key]
	return present
}

func id(prefix string) rule { return matching(prefix + `_[0-7][0-9A-HJKMNP-TV-Z]{25}`) }

const zeroSHA256 = "0000000000000000000000000000000000000000000000000000000000000000"

var (
	token       = matching(`[a-z0-9][a-z0-9_.-]{0,63}`)
	fingerprint = matching(`[A-Za-z0-9._:-]{8,128}`)
	sha256Rule  = matching(`[0-9a-f]{64}`)
	software    = matching(`[ -~]{1,64}`)
	host        = matching(`https?://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?`)
	count       = integerFrom(0)
	positive    = integerFrom(1)
)

func name(value any) error {
	if text, ok := value.(string); !ok || len(text) > 200 {
		return wrong("more than 200 bytes")
	}
	return nil
}

func origin(value any) error {
	if err := host(value); err != nil {
		return err
	}
	text := value.(string)
	isHTTP, isHTTPS := strings.HasPrefix(text, "http:"), strings.HasPrefix(text, "https:")
	if isHTTP && strings.HasSuffix(text, ":80") || isHTTPS && strings.HasSuffix(text, ":443") {
		return wrong("an origin has no default port")
	}
	if len(text) > 267 {
		return wrong("longer than a host name")
	}
	return nil
}

func boolean(value any) error {
	if _, ok := value.(bool); !ok {
		return wrong("a boolean is wanted")
	}
	return nil
}

func publicKey(value any) error {
	text, ok := value.(string)
	if !ok {
		return wrong("a string is wanted")
	}
	_, err := publicKeyFrom(text)
	return err
}

func anyObject(value any) error {
	if _, ok := value.(object); !ok {
		return wrong("an object is wanted")
	}
	return nil
}

// notUnderstood refuses crit: it names facts that must be understood, and we know none.
func notUnderstood(any) error { return wrong("crit names a fact that is not understood") }

func common(typ string, iss rule) fields {
	return fields{
		"typ": oneOf(typ), "iss": iss, "issued_at": count, "ext?": anyObject, "crit?": notUnderstood,
	}
}

func vendor(typ string) fields { return common(typ, name).with(fields{"product": token}) }

func instance(typ string) fields {
	return common(typ, oneOf("instance")).with(fields{"aud": origin, "request_id": id("req")})
}

var (
	features = sortedBy(token, itself)
	limits   = objectOf(
		fields{
			"tokens_per_window?": positive, "window_s?": positive, "max_concurrency?": positive,
			"max_instances?": positive, "max_seats?": positive,
		},
		unless(func(it object) bool {
			return has(it, "tokens_per_window") != has(it, "window_s")
		}, "half of a window"),
	)
	budget = objectOf(
		fields{"budget_id": id("bud"), "tokens_total": count, "carry_over_from?": id("bud")},
		unless(func(it object) bool {
			return it["carry_over_from"] == it["budget_id"]
		}, "a budget carries over from itself"),
	)
)

// schemas by kind.
var schemas = map[string]rule{
	"license": objectOf(
		vendor("license.v1").with(fields{
			"license_id":     id("lic"),
			"deployment_id":  id("dep"),
			"revision":       positive,
			"supersedes?":    id("lic"),
			"customer_id":    id("cus"),
			"customer_name?": name,
			"sku":            token,
			"mode":           oneOf("offline", "lease"),
			"not_before_at":  count,
			"expires_at":     count,
			"grace_s?":       count,
			"features":       features,
			"limits":         limits,
			"budget?":        budget,
			"binding":        objectOf(fields{"fingerprints": sortedBy(fingerprint, itself)}),
			"support_tier?":  token,
			"lease?":         objectOf(fields{"url": origin, "ttl_s": positive, "grace_s": count}),
			"revocation": objectOf(fields{
				"require_current_bundle": boolean, "min_version": count,
			}),
			"min_keyset_version": count,
		}),
		rising("not_before_at", "expires_at", false),
		unless(func(it object) bool {
			return it["supersedes"] == it["license_id"]
		}, "it supersedes itself"),
		unless(func(it object) bool {
			return (it["mode"] == "lease") != has(it, "lease")
		}, "lease stands exactly with mode lease"),
	),
	"lease": objectOf(
		vendor("lease.v1").with(fields{
			"lease_id":         id("lea"),
			"deployment_id":    id("dep"),
			"license_id":       id("lic"),
			"license_revision": positive,
			"license_sha256":   sha256Rule,
			"customer_id":      id("cus"),
			"instance_id":      id("ins"),
			"instance_keyid":   sha256Rule,
			"fingerprint?":     fingerprint,
			"epoch":            positive,
			"seq":              positive,
			"prev_sha256":      sha256Rule,
			"request_id":       id("req"),
			"request_sha256":   sha256Rule,
			"status":           oneOf("active", "suspended", "revoked", "superseded", "ended"),
			"reason?":          token,
			"superseded_by?":   id("lic"),
			"features?":        features,
			"limits?":          limits,
			"budget?":          budget,
			"expires_at":       count,
			"grace_until_at":   count,
			"renew_at":         renewAt,
			"bundle_version":   count,
			"keyset_version":   count,
			"clone_warning?":   oneOf(true),
		}),
		rising("expires_at", "grace_until_at", true),
		unless(func(it object) bool {
			isFirst := it["epoch"] == int64(1) && it["seq"] == int64(1)
			return isFirst && it["prev_sha256"] != zeroSHA256
		}, "the first lease follows nothing"),
		unless(func(it object) bool {
			return has(it, "superseded_by") && it["status"] != "superseded"
		}, "superseded_by without its status"),
	),
	"revocation-bundle": objectOf(
		vendor("revocation-bundle.v1").with(fields{
			"version":    positive,
			"expires_at": count,
			"entries": sortedBy(
				objectOf(fields{
					"license_id":     id("lic"),
					"status":         oneOf("revoked", "suspended", "superseded"),
					"effective_at":   count,
					"reason":         oneOf("replaced", "withdrawn", "on-hold", "key-compromise"),
					"superseded_by?": id("lic"),
				}),
				func(entry any) string { return entry.(object)["license_id"].(string) },
			),
		}),
		rising("issued_at", "expires_at", false),
		rising("issued_at", "version", true),
	),
	"keyset": objectOf(
		vendor("keyset.v1").with(fields{
			"version":        positive,
			"expires_at":     count,
			"prev_sha256":    sha256Rule,
			"root_threshold": positive,
			"roots":          arrayOf(objectOf(rootFields)),
			"keys": arrayOf(objectOf(
				rootFields.with(fields{
					"role":          oneOf("license", "lease", "revocation"),
					"status":        oneOf("active", "retired", "compromised"),
					"not_before_at": count,
					"not_after_at":  count,
				}),
				rising("not_before_at", "not_after_at", false),
			)),
		}),
		rising("issued_at", "expires_at", false),
		checkKeys,
	),
	"enrollment-request": objectOf(instance("enrollment-request.v1").with(fields{
		"code":           matching(`[0-9A-Za-z_-]{22,64}`),
		"public_key":     publicKey,
		"fingerprint?":   fingerprint,
		"label?":         name,
		"software":       software,
		"license_id":     id("lic"),
		"license_sha256": sha256Rule,
	})),
	"lease-request": objectOf(instance("lease-request.v1").with(fields{
		"license_id":     id("lic"),
		"license_sha256": sha256Rule,
		"instance_id":    id("ins"),
		"fingerprint?":   fingerprint,
		"prev_epoch":     count,
		"prev_seq":       count,
		"prev_sha256":    sha256Rule,
		"boot_id":        matching(`[0-9a-f]{32}`),
		"bundle_version": count,
		"keyset_version": count,
		"software":       software,
		"usage?": objectOf(fields{
			"budget_id": id("bud"), "tokens_total": count, "requests_total": count,
		}),
	})),
	"release-request": objectOf(instance("release-request.v1").with(fields{
		"instance_id": id("ins"),
		"lease_id":    id("lea"),
	})),
}

var rootFields = fields{"keyid": sha256Rule, "alg": oneOf("ed25519"), "public_key": publicKey}

func renewAt(value any) error {
	if err := arrayOf(count)(value); err != nil {
		return err
	}
	list := value.([]any)
	if len(list) != 2 || list[0].(int64) > list[1].(int64) {
		return wrong("renew_at is earliest, latest")
	}
	return nil
}

// checkKeys wants every key under its own id, none twice, and a threshold that can be met.
func checkKeys(it object) error {
	roots, keys := it["roots"].([]any), it["keys"].([]any)
	if it["root_threshold"].(int64) > int64(len(roots)) {
		return wrong("more signatures asked for than there are roots")
	}
	if (it["version"] == int64(1)) != (it["prev_sha256"] == zeroSHA256) {
		return wrong("version 1 alone follows nothing")
	}
	seen := map[string]bool{}
	for _, each := range append(append([]any{}, roots...), keys...) {
		entry := each.(object)
		key, err := publicKeyFrom(entry["public_key"].(string))
		if err != nil {
			return err
		}
		if keyIDOf(key) != entry["keyid"] {
			return wrong("not the key id of its key")
		}
		if seen[string(key)] {
			return wrong("a public key stands twice")
		}
		seen[string(key)] = true
	}
	return nil
}
