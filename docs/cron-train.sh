#!/bin/sh
# Freeze, train, evaluate, mail a report; for cron, see training.md. Promotes nothing: that is for a person.
# Research use only, not for clinical use.
#
#   cron-train.sh ADDRESS [EXAMS [OPTIONS OF tomonode train launch]]
#
# Ends with 0 when nothing is due or the report is mailed, else with the exit code of the step that failed and its
# one line on standard error, which cron mails.
set -eu
to=${1:?give the address that the report is mailed to}
exams=${2:-200}
[ $# -ge 2 ] && shift
shift

due=0
tomonode train schedule --exams "$exams" > /dev/null || due=$?
[ "$due" -eq 3 ] && exit 0
[ "$due" -eq 0 ] || exit "$due"

report=$(mktemp -d)
trap 'rm -rf "$report"' EXIT
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]] or "")' "$1"; }

today=$(date +%F)
dataset=auto-$today
tomonode dataset freeze "$dataset" --since "${TOMONODE_CRON_SINCE:-2000-01-01}" --until "$today" > /dev/null
tomonode train launch --dataset "$dataset" --recipe fine-tune --by cron "$@" --json > "$report/launch.json"
training=$(field id < "$report/launch.json")

outcome=0
tomonode train wait "$training" --json > "$report/wait.json" || outcome=$?
state=$(field state < "$report/wait.json")
tomonode train show "$training" > "$report/training.txt"
model=$(tomonode train show "$training" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["row"]["model"] or "")')
if [ -n "$model" ]; then
  tomonode model show "$model" --page "$report/comparison.html" > "$report/model.txt" ||
    tomonode model show "$model" > "$report/model.txt" # without a test split there is no page
fi

# A message of plain text with the page attached, by the mail system's own sendmail.
python3 - "$to" "tomonode: training $training $state" "$report" << 'MESSAGE' | sendmail -t
import sys
from email.message import EmailMessage
from pathlib import Path

to, subject, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
message = EmailMessage()
message["To"], message["Subject"] = to, subject
parts = [folder / name for name in ("training.txt", "model.txt")]
text = "\n".join(part.read_text() for part in parts if part.exists())
message.set_content(text + "\nNothing was promoted; `tomonode model promote` is for a person.\n")
page = folder / "comparison.html"
if page.exists():
    message.add_attachment(page.read_bytes(), maintype="text", subtype="html", filename=page.name)
sys.stdout.buffer.write(message.as_bytes())
MESSAGE
exit "$outcome"
