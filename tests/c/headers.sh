#!/bin/sh
# headers.sh LANGUAGE COMPILER OPTIONS...: compiles each public header alone, and does not put up with a warning.
language=$1
shift
cd "$(dirname "$0")/../../include" || exit 1
failed=0
for header in tq/*.h; do
    "$@" -Wall -Wextra -Wpedantic -Werror -I. -fsyntax-only -include "$header" -x "$language" /dev/null || {
        echo "$header does not compile alone as $language"
        failed=1
    }
done
exit $failed
