"""Reads the OCSP response in the file named, verifies its signature with the delegated certificate
inside, and prints what a client would act on as JSON."""

import json
import sys

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ocsp

with open(sys.argv[1], "rb") as file:
    response = ocsp.load_der_ocsp_response(file.read())

(delegate,) = response.certificates
key = delegate.public_key()
signed = (response.signature, response.tbs_response_bytes)
if isinstance(key, rsa.RSAPublicKey):
    key.verify(*signed, padding.PKCS1v15(), response.signature_hash_algorithm)
elif isinstance(key, ec.EllipticCurvePublicKey):
    key.verify(*signed, ec.ECDSA(response.signature_hash_algorithm))
else:
    sys.exit(f"unexpected key {key}")

# An answer for both the SHA-1 and the SHA-256 CertID holds two; they must say the same.
first, *rest = response.responses


def facts(single):
    reason = single.revocation_reason
    time = single.revocation_time_utc
    return {
        "serial": f"{single.serial_number:x}",
        "certificate_status": single.certificate_status.name,
        "revocation_time": time.isoformat() if time else None,
        "revocation_reason": reason.value if reason else None,
        "this_update": single.this_update_utc.isoformat(),
        "next_update": single.next_update_utc.isoformat(),
    }


for other in rest:
    if facts(other) != facts(first):
        sys.exit("the SingleResponses differ")

json.dump(
    facts(first)
    | {
        "hashes": [single.hash_algorithm.name for single in response.responses],
        "signature_algorithm": response.signature_algorithm_oid._name,
        "responder_by_key": response.responder_key_hash is not None,
    },
    sys.stdout,
)
