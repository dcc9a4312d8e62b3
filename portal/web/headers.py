"""Headers that every answer carries, whatever its status.

Source: OWASP ASVS 5.0.0 chapter 3.4; RFC 6797; https://www.w3.org/TR/CSP3/.
"""

from flask import Response, g

from portal.web.portal import portal

# Chromium also checks where a submitted form redirects to.
PAYMENT_HOSTS = "https://checkout.stripe.com https://billing.stripe.com"
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        f"form-action 'self' {PAYMENT_HOSTS}",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
STRICT_TRANSPORT = "max-age=63072000; includeSubDomains"


def add_headers(response: Response) -> Response:
    """Add the security headers, the request id, and `no-store` unless the answer may be cached."""
    headers = response.headers
    headers["Request-Id"] = g.get("request_id", "")
    headers["X-Content-Type-Options"] = "nosniff"
    if portal().settings.secure:
        headers["Strict-Transport-Security"] = STRICT_TRANSPORT
    headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    headers["Referrer-Policy"] = "same-origin"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
    headers.setdefault("Cache-Control", "no-store")
    return response
