#!/usr/bin/env bash
# Subjects of commits: `area: imperative change`, at most 72 characters. ci/commits.sh [base]
# Without a base: what origin/main does not have, or else the last 20.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -gt 0 ]; then
    range=$1..HEAD
elif base=$(git merge-base HEAD origin/main 2>/dev/null); then
    range=$base..HEAD
else
    range="-20 HEAD"
fi
# Imperative is not checked but for what is certainly none.
# shellcheck disable=SC2086 # the range may be two words
git log --no-merges --format='%h %s' $range -- | awk '
    {
        subject = substr($0, length($1) + 2)
        fault = ""
        if (length(subject) > 72) fault = length(subject) " characters"
        else if (subject !~ /^[A-Za-z0-9_.\/-]+(, [A-Za-z0-9_.\/-]+)*: [^ ]/) fault = "not `area: change`"
        else if (subject ~ /\.$/) fault = "ends with a full stop"
        else if (subject ~ /: [A-Za-z]+(ed|ing) /) fault = "not imperative"
        if (fault != "") { print $1 ": " fault ": " subject; faults++ }
    }
    END { print "commits: " NR " subjects, " faults + 0 " at fault"; exit faults > 0 }
'
