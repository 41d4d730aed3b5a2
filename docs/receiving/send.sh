#!/bin/sh
# Posts one signed webhook to a receiver: WEBHOOK_SECRET=whsec_… ./send.sh http://127.0.0.1:8000/
set -eu
body='{"id":"evt_by_hand","type":"order.paid","timestamp":"2026-11-25T08:00:00Z","data":{"order":17}}'
now=$(date +%s)
key=$(printf %s "${WEBHOOK_SECRET#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
signature=$(printf %s "evt_by_hand.$now.$body" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)
exec curl -sS -o /dev/null -w '%{http_code}\n' "$1" -H 'Content-Type: application/json' \
  -H 'webhook-id: evt_by_hand' -H "webhook-timestamp: $now" -H "webhook-signature: v1,$signature" -d "$body"
