#!/usr/bin/env bash
# What action.yml runs for a pull request: BASE, FILES, PACKAGE and PULL are its inputs.
set -euo pipefail

if ! command -v preflow >/dev/null; then
    python3 -m pip install --quiet --disable-pip-version-check "$PACKAGE"
fi
# A checkout is often of one commit: the base must be there too.
if ! git cat-file -e "$BASE^{commit}" 2>/dev/null; then
    git fetch --quiet --depth=1 origin "$BASE"
fi
read -ra files <<<"${FILES:-}"
if [ "${PULL:-}" = true ]; then
    # What the remote lacks is said in the comment.
    for file in "${files[@]}"; do preflow pull "$file" || true; done
    if [ ${#files[@]} = 0 ]; then preflow pull || true; fi
fi
exec preflow ci "$BASE" "${files[@]}" --comment
