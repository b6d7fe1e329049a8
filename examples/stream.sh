#!/bin/sh
# Streams an answer with curl: one `data:` line for each piece, comments while a long prompt is read, `[DONE]` at the end.
set -eu
url="${TIDEPOOL_URL:-http://127.0.0.1:8000}"
question="${1:-Hello! Who are you?}"

# JSON strings want their backslashes and quotes escaped.
escaped=$(printf '%s' "$question" | sed 's/\\/\\\\/g; s/"/\\"/g')

exec curl -sSN --fail-with-body "$url/v1/chat/completions" -H 'content-type: application/json' -d "{
  \"messages\": [{\"role\": \"user\", \"content\": \"$escaped\"}],
  \"max_tokens\": 64, \"stream\": true, \"return_progress\": true
}"
