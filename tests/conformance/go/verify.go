package main

import (
	"crypto/ed25519"
	"fmt"
	"regexp"
)

// A complete verifier of the signed documents, with Go's standard library alone.
//
// Every function returns a refusal: the first code of the fixed order that fails. Nothing here reads
// a clock; at is Unix time in seconds.

const (
	product         = "genai-smart-router"
	clockToleranceS = 300
	maxSignatures   = 8
)

// refusal is the code of a check that failed.
type refusal string

func (r refusal) Error() string { return string(r) }

func maxBytes(kind string) int {
	switch kind {
	case "keyset":
		return 1 << 20
	case "revocation-bundle":
		return 16 << 20
	}
	return 16 << 10
}

func roleFor(kind string) string {
	if kind == "revocation-bundle" {
		return "revocation"
	}
	return kind
}

type signature struct {
	keyid string
	sig   []byte
}

type envelope struct {
	payloadType string
	payload     []byte
	signatures  []signature
}

var keyidPattern = regexp.MustCompile(`\A[0-9a-f]{64}\z`)

// exactly returns an object that has these members and no others.
func exactly(value any, keys ...string) (object, bool) {
	it, ok := value.(object)
	if !ok || len(it) != len(keys) {
		return nil, false
	}
	for _, key := range keys {
		if !has(it, key) {
			return nil, false
		}
	}
	return it, true
}

// openEnvelope is row 1.
func openEnvelope(file []byte, limit int) (*envelope, error) {
	const bad = refusal("malformed-envelope")
	if len(file) > limit {
		return nil, bad
	}
	value, err := parseJSON(file)
	if err != nil {
		return nil, bad
	}
	it, ok := exactly(value, "payload", "payloadType", "signatures")
	if !ok {
		return nil, bad
	}
	encoded, isString := it["payload"].(string)
	payloadType, isAlsoString := it["payloadType"].(string)
	listed, isArray := it["signatures"].([]any)
	if !isString || !isAlsoString || !isArray || len(listed) < 1 || len(listed) > maxSignatures {
		return nil, bad
	}
	payload, err := decodeBase64(encoded)
	if err != nil {
		return nil, bad
	}
	opened := &envelope{payloadType: payloadType, payload: payload}
	seen := map[string]bool{}
	for _, each := range listed {
		one, err := readSignature(each)
		if err != nil || seen[one.keyid] {
			return nil, bad
		}
		seen[one.keyid] = true
		opened.signatures = append(opened.signatures, one)
	}
	return opened, nil
}

func readSignature(value any) (signature, error) {
	it, ok := exactly(value, "keyid", "sig")
	if !ok {
		return signature{}, wrong("exactly keyid and sig")
	}
	keyid, isString := it["keyid"].(string)
	encoded, isAlsoString := it["sig"].(string)
	if !isString || !isAlsoString || !keyidPattern.MatchString(keyid) {
		return signature{}, wrong("a key id is 64 lower-case hex digits")
	}
	sig, err := decodeBase64(encoded)
	if err == nil && len(sig) != ed25519.SignatureSize {
		err = wrong("a signature has 64 bytes")
	}
	return signature{keyid, sig}, err
}

// openKind is rows 1 and 2.
func openKind(kind string, file []byte) (*envelope, error) {
	opened, err := openEnvelope(file, maxBytes(kind))
	if err != nil {
		return nil, err
	}
	if opened.payloadType != "application/vnd.metrum."+kind+".v1+json" {
		return nil, refusal("wrong-type")
	}
	return opened, nil
}

// signingInput is DSSE's pre-authentication encoding.
func (e *envelope) signingInput() []byte {
	head := fmt.Sprintf("DSSEv1 %d %s %d ", len(e.payloadType), e.payloadType, len(e.payload))
	return append([]byte(head), e.payload...)
}

// parseKind is row 5: the payload, in canonical form and of its schema.
func parseKind(kind string, payload []byte) (object, error) {
	document, err := parsePayload(payload)
	if err == nil {
		err = schemas[kind](document)
	}
	if err != nil {
		return nil, refusal("malformed-payload")
	}
	return document, nil
}

// signers is rows 3 and 4: the entries among keys whose signature is right.
func (e *envelope) signers(keys []object) ([]object, error) {
	message := e.signingInput()
	named := false
	var right []object
	for _, each := range e.signatures {
		for _, key := range keys {
			if key["keyid"] != each.keyid {
				continue
			}
			named = true
			public, err := publicKeyFrom(key["public_key"].(string))
			if err == nil && ed25519.Verify(public, message, each.sig) {
				right = append(right, key)
			}
		}
	}
	if !named {
		return nil, refusal("untrusted-key")
	}
	if len(right) == 0 {
		return nil, refusal("bad-signature")
	}
	return right, nil
}

// keyset is a verified one.
type keyset struct {
	document object
	sha256   string
}

func (k *keyset) version() int64     { return k.document["version"].(int64) }
func (k *keyset) threshold() int     { return int(k.document["root_threshold"].(int64)) }
func (k *keyset) roots() []object    { return objects(k.document["roots"]) }
func (k *keyset) issuer() any        { return k.document["iss"] }
func issuedAt(document object) int64 { return document["issued_at"].(int64) }

func objects(list any) []object {
	var all []object
	for _, each := range list.([]any) {
		all = append(all, each.(object))
	}
	return all
}

// ofRole returns the keys that may sign for a role, whatever their status.
func (k *keyset) ofRole(role string) []object {
	var found []object
	for _, key := range objects(k.document["keys"]) {
		if key["role"] == role {
			found = append(found, key)
		}
	}
	return found
}

func covers(key object, at int64) bool {
	return key["status"] != "compromised" &&
		key["not_before_at"].(int64) <= at && at < key["not_after_at"].(int64)
}

func checkIssued(document object, at int64) error {
	if issuedAt(document) > at+clockToleranceS {
		return refusal("not-yet-valid")
	}
	return nil
}

// signed is a document with the hash of its payload.
type signed struct {
	document object
	sha256   string
}

// verifySigned is rows 1 to 7 of a document that a key of the keyset signs.
func verifySigned(kind string, file []byte, trust *keyset) (*signed, error) {
	opened, err := openKind(kind, file)
	if err != nil {
		return nil, err
	}
	right, err := opened.signers(trust.ofRole(roleFor(kind)))
	if err != nil {
		return nil, err
	}
	document, err := parseKind(kind, opened.payload)
	if err != nil {
		return nil, err
	}
	if document["iss"] != trust.issuer() {
		return nil, refusal("wrong-issuer")
	}
	if document["product"] != product {
		return nil, refusal("wrong-product")
	}
	for _, key := range right {
		if covers(key, issuedAt(document)) {
			return &signed{document, sha256Hex(opened.payload)}, nil
		}
	}
	return nil, refusal("key-not-valid")
}

// floors are what was already in use here; 0 where nothing was.
type floors struct {
	Revision      int64 `json:"revision"`
	BundleVersion int64 `json:"bundle_version"`
	KeysetVersion int64 `json:"keyset_version"`
}

// licenseOptions are what a verifier knows and asks beside the license.
type licenseOptions struct {
	fingerprint    *string // nil: the binding is not asked
	floors         floors
	bundle         []byte // nil: none at hand
	requireCurrent bool
}

// verifyLicense verifies a license file completely.
func verifyLicense(file []byte, trust *keyset, at int64, options licenseOptions) (*signed, error) {
	found, err := verifySigned("license", file, trust)
	if err != nil {
		return nil, err
	}
	license := found.document
	if trust.version() < license["min_keyset_version"].(int64) {
		return nil, refusal("keyset-too-old")
	}
	if err := checkIssued(license, at); err != nil {
		return nil, err
	}
	if license["not_before_at"].(int64) > at {
		return nil, refusal("not-yet-valid")
	}
	if at >= license["expires_at"].(int64) {
		return nil, refusal("expired")
	}
	allowed := license["binding"].(object)["fingerprints"].([]any)
	if options.fingerprint != nil && len(allowed) > 0 {
		if oneOf(allowed...)(*options.fingerprint) != nil {
			return nil, refusal("wrong-instance")
		}
	}
	if license["revision"].(int64) < options.floors.Revision ||
		trust.version() < options.floors.KeysetVersion {
		return nil, refusal("rolled-back")
	}
	return found, checkRevocation(license, trust, at, options)
}

// checkRevocation is rows 12 and 13.
func checkRevocation(license object, trust *keyset, at int64, options licenseOptions) error {
	const unusable = refusal("revocation-unusable")
	terms := license["revocation"].(object)
	minVersion := terms["min_version"].(int64)
	if options.bundle == nil {
		needed := options.requireCurrent || terms["require_current_bundle"] == true || minVersion > 0
		switch {
		case options.floors.BundleVersion > 0:
			return unusable
		case needed:
			return refusal("revocation-required")
		}
		return nil
	}
	bundle, err := verifyBundle(options.bundle, trust, at, 0, false)
	if err != nil {
		return unusable
	}
	// An old or expired bundle still revokes.
	for _, entry := range objects(bundle["entries"]) {
		if entry["license_id"] == license["license_id"] && entry["effective_at"].(int64) <= at {
			return refusal(entry["status"].(string))
		}
	}
	version := bundle["version"].(int64)
	if version < options.floors.BundleVersion || version < minVersion ||
		at >= bundle["expires_at"].(int64) {
		return unusable
	}
	return nil
}

// verifyLease verifies a lease as a document; it serves while active and before grace_until_at.
// An empty instanceKeyid asks for no instance.
func verifyLease(file []byte, trust *keyset, at int64, instanceKeyid string) (*signed, error) {
	lease, err := verifySigned("lease", file, trust)
	if err != nil {
		return nil, err
	}
	if err := checkIssued(lease.document, at); err != nil {
		return nil, err
	}
	if instanceKeyid != "" && lease.document["instance_keyid"] != instanceKeyid {
		return nil, refusal("wrong-instance")
	}
	return lease, nil
}

// verifyWithin verifies a license file, and that a verified lease grants no more. The periods say
// since when each period budget of the deployment has been in use, by budget id.
func verifyWithin(
	lease *signed, file []byte, trust *keyset, at int64, periods map[string]int64,
) error {
	license, err := verifyLicense(file, trust, at, licenseOptions{})
	if err != nil {
		return err
	}
	// A lease for another license grants nothing of its own.
	isFor := lease.document["license_sha256"] == license.sha256
	if isFor && !isWithin(lease.document, license.document, at, periods) {
		return refusal("lease-rejected")
	}
	return nil
}

// isNoMore compares two limits of a name; what is absent is not limited, or not narrowed.
func isNoMore(given, most object, name string) bool {
	ours, isGiven := given[name].(int64)
	bound, isBound := most[name].(int64)
	return !isGiven || !isBound || ours <= bound
}

func isWithin(lease, license object, at int64, periods map[string]int64) bool {
	if lease["grace_until_at"].(int64) > license["expires_at"].(int64) {
		return false
	}
	if features, present := lease["features"].([]any); present {
		licensed := oneOf(license["features"].([]any)...)
		for _, each := range features {
			if licensed(each) != nil {
				return false
			}
		}
	}
	if ours, present := lease["limits"].(object); present {
		most := license["limits"].(object)
		for _, name := range []string{
			"tokens_per_window", "max_concurrency", "max_instances", "max_seats",
		} {
			if !isNoMore(ours, most, name) {
				return false
			}
		}
		// A shorter window lets more tokens through.
		if !isNoMore(most, ours, "window_s") {
			return false
		}
	}
	budget, present := lease["budget"].(object)
	return !present || isBudgetWithin(budget, license, at, periods)
}

func isBudgetWithin(ours, license object, at int64, periods map[string]int64) bool {
	most, isCounted := license["budget"].(object)
	if from := ours["carry_over_from"]; from != nil && from != most["carry_over_from"] {
		return false
	}
	switch {
	case !isCounted:
		return true
	case ours["tokens_total"].(int64) > most["tokens_total"].(int64):
		return false
	case ours["budget_id"] == most["budget_id"]:
		return true
	}
	facts, _ := license["ext"].(object)
	period, isNumber := facts["budget_period_s"].(int64)
	if !isNumber || period <= 0 {
		return false
	}
	if _, known := periods[ours["budget_id"].(string)]; known {
		return true
	}
	for _, since := range periods {
		if at < since+period {
			return false
		}
	}
	return true
}

// verifyBundle verifies a revocation bundle; floor is the highest version seen.
func verifyBundle(file []byte, trust *keyset, at, floor int64, current bool) (object, error) {
	found, err := verifySigned("revocation-bundle", file, trust)
	if err != nil {
		return nil, err
	}
	bundle := found.document
	if err := checkIssued(bundle, at); err != nil {
		return nil, err
	}
	if current && at >= bundle["expires_at"].(int64) {
		return nil, refusal("expired")
	}
	if bundle["version"].(int64) < floor {
		return nil, refusal("rolled-back")
	}
	return bundle, nil
}

// verifyKeyset verifies a keyset under its own roots. An expired one still verifies.
func verifyKeyset(file []byte, at int64) (*keyset, error) {
	return verifySuccessor(file, nil, at, false)
}

// verifyKeysetUpdate verifies a keyset that shall take the place of the held one. The steps are the
// versions between, in order; they may have expired, the last may not.
func verifyKeysetUpdate(file []byte, held *keyset, at int64, steps [][]byte) (*keyset, error) {
	for _, step := range steps {
		next, err := verifySuccessor(step, held, at, false)
		if err != nil {
			return nil, err
		}
		held = next
	}
	return verifySuccessor(file, held, at, true)
}

// verifySuccessor verifies a keyset under its own roots and, where one is held, as its successor.
// The payload is read before the signatures, since it names the roots.
func verifySuccessor(file []byte, held *keyset, at int64, current bool) (*keyset, error) {
	opened, err := openKind("keyset", file)
	if err != nil {
		return nil, err
	}
	document, err := parseKind("keyset", opened.payload)
	if err != nil {
		return nil, err
	}
	next := &keyset{document, sha256Hex(opened.payload)}
	own, err := opened.signers(next.roots())
	if err != nil {
		return nil, err
	}
	var old []object
	if held != nil {
		if old, err = opened.signers(held.roots()); err != nil {
			return nil, err
		}
		if next.issuer() != held.issuer() {
			return nil, refusal("wrong-issuer")
		}
	}
	if document["product"] != product {
		return nil, refusal("wrong-product")
	}
	if len(own) < next.threshold() || held != nil && len(old) < held.threshold() {
		return nil, refusal("key-not-valid")
	}
	if err := checkIssued(document, at); err != nil {
		return nil, err
	}
	if held == nil {
		return next, nil
	}
	if current && at >= document["expires_at"].(int64) {
		return nil, refusal("expired")
	}
	isFork := next.version() == held.version()+1 && document["prev_sha256"] != held.sha256
	if next.version() <= held.version() || isFork {
		return nil, refusal("rolled-back")
	}
	return next, nil
}

// verifyRequest verifies what an instance signed. An enrollment brings its key; for the others
// publicKey is base64 of 32 bytes.
func verifyRequest(kind string, file []byte, publicKey string) (object, error) {
	opened, err := openKind(kind, file)
	if err != nil {
		return nil, err
	}
	if len(opened.signatures) != 1 {
		return nil, refusal("malformed-envelope")
	}
	if publicKey == "" {
		request, err := parseKind(kind, opened.payload)
		if err != nil {
			return nil, err
		}
		publicKey = request["public_key"].(string)
	}
	key, err := publicKeyFrom(publicKey)
	if err != nil {
		return nil, refusal("malformed-payload")
	}
	entry := object{"keyid": keyIDOf(key), "public_key": publicKey}
	if _, err := opened.signers([]object{entry}); err != nil {
		return nil, err
	}
	return parseKind(kind, opened.payload)
}
