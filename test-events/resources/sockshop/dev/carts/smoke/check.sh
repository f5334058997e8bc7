#!/bin/sh
# Stands for a real smoke test: reads the endpoints that it got as a file and "checks" each.
set -eu
count=0
while read -r endpoint; do
	echo "GET $endpoint: 200"
	count=$((count + 1))
done <"$ENDPOINTS"
echo "$count endpoints answer ($STRATEGY)"
