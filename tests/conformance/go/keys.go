package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math/big"
)

// Strict base64, Ed25519 public keys and key ids.

// spkiPrefix stands before the 32 bytes of a key in its SubjectPublicKeyInfo in DER (RFC 8410).
var spkiPrefix = []byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}

var (
	one       = big.NewInt(1)
	prime     = new(big.Int).Sub(new(big.Int).Lsh(one, 255), big.NewInt(19))
	curveD    = quotient(big.NewInt(-121665), big.NewInt(121666))
	smallYs   = smallOrder()
	halfPrime = new(big.Int).Rsh(prime, 1)
)

func quotient(numerator, denominator *big.Int) *big.Int {
	inverse := new(big.Int).ModInverse(denominator, prime)
	return inverse.Mul(inverse, numerator).Mod(inverse, prime)
}

// smallOrder returns the y coordinates of the eight points of small order; either sign occurs.
func smallOrder() []*big.Int {
	raw, err := hex.DecodeString("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
	if err != nil {
		panic(err)
	}
	order8 := little(raw)
	return []*big.Int{
		big.NewInt(0), one, new(big.Int).Sub(prime, one), order8, new(big.Int).Sub(prime, order8),
	}
}

func little(raw []byte) *big.Int {
	reversed := make([]byte, len(raw))
	for i, each := range raw {
		reversed[len(raw)-1-i] = each
	}
	return new(big.Int).SetBytes(reversed)
}

// decodeBase64 decodes standard base64 with padding. Go passes over line breaks, so encode it again.
func decodeBase64(text string) ([]byte, error) {
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err == nil && base64.StdEncoding.EncodeToString(data) != text {
		err = errors.New("not strict base64")
	}
	return data, err
}

// publicKeyFrom takes a key from base64: canonical, a point of the curve, and not of small order.
func publicKeyFrom(text string) (ed25519.PublicKey, error) {
	raw, err := decodeBase64(text)
	if err != nil {
		return nil, err
	}
	if len(raw) != ed25519.PublicKeySize {
		return nil, errors.New("a public key has 32 bytes")
	}
	y := little(raw)
	y.SetBit(y, 255, 0)
	if y.Cmp(prime) >= 0 {
		return nil, errors.New("a public key is not in canonical form")
	}
	for _, small := range smallYs {
		if y.Cmp(small) == 0 {
			return nil, errors.New("a public key is of small order")
		}
	}
	// x^2 = (y^2 - 1) / (d y^2 + 1) must have a root (RFC 8032, section 5.1.3).
	square := new(big.Int).Mul(y, y)
	denominator := new(big.Int).Mul(curveD, square)
	product := new(big.Int).Mul(square.Sub(square, one), denominator.Add(denominator, one))
	if product.Exp(product.Mod(product, prime), halfPrime, prime).Cmp(one) != 0 {
		return nil, errors.New("a public key is not a point of the curve")
	}
	return raw, nil
}

func sha256Hex(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// keyIDOf is the SHA-256 of the key's SubjectPublicKeyInfo in DER.
func keyIDOf(key ed25519.PublicKey) string {
	return sha256Hex(append(append([]byte{}, spkiPrefix...), key...))
}
