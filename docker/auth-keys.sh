#!/bin/sh
# Makes the keys and tokens of docker/auth.yaml, in docker/auth (or AUTH_FOLDER). It needs openssl and nothing
# else: Linux, macOS, and Windows with WSL or Git Bash.
#
#   docker/auth-keys.sh                    the key pair and the gateway's token, if there are none, and a new
#                                          token for the processes
#   docker/auth-keys.sh --days 7           how long the token for the processes is valid; 90 days by default
#   docker/auth-keys.sh --prefix shop-     it covers ids that begin with shop- only; all ids by default
#
# Run it again before the token expires. Running processes read the new one within seconds.
set -eu

folder=${AUTH_FOLDER:-$(dirname "$0")/auth}
days=90
prefix=
while [ $# -gt 0 ]; do
    case $1 in
        --days) days=${2:?a number of days} ;;
        --prefix) prefix=${2?a prefix of ids} ;;
        --folder) folder=${2:?a folder} ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
    esac
    shift 2
done
case $days in
    *[!0-9]* | 0*) echo "error: invalid --days \"$days\": expected a number of days, such as 90" >&2; exit 64 ;;
esac
case $prefix in
    *[!A-Za-z0-9_-]*) echo "error: invalid --prefix \"$prefix\": expected characters of A-Z a-z 0-9 - _" >&2; exit 64 ;;
esac
command -v openssl >/dev/null || { echo "error: openssl is not installed" >&2; exit 1; }

# Only this user enters the folder. Inside containers, another user (65532) reads single files: Compose mounts
# them with the permissions that they have here.
umask 077
mkdir -p "$folder"
chmod 700 "$folder"

if [ ! -s "$folder/private.pem" ]; then
    openssl genrsa -out "$folder/private.pem" 2048 2>/dev/null
fi
openssl rsa -in "$folder/private.pem" -pubout -out "$folder/public.pem" 2>/dev/null

base64url() {
    openssl base64 -A | tr '+/' '-_' | tr -d '='
}
now=$(date +%s)
head=$(printf '{"alg":"RS256","typ":"JWT"}' | base64url)
claims=$(printf '{"iat":%s,"exp":%s,"prefix":"%s"}' "$now" $((now + days * 86400)) "$prefix" | base64url)
signature=$(printf '%s.%s' "$head" "$claims" | openssl dgst -sha256 -sign "$folder/private.pem" | base64url)
# Written in place: a container has this very file, and would not see another one of the same name.
printf '%s.%s.%s\n' "$head" "$claims" "$signature" >"$folder/token"

if [ ! -s "$folder/gateway-tokens" ]; then
    openssl rand -hex 24 >"$folder/gateway-tokens"
fi
chmod 644 "$folder/public.pem" "$folder/token" "$folder/gateway-tokens"

echo "$folder/private.pem     signs tokens; no container has it"
echo "$folder/public.pem      verifies them, in the Resonate Server"
echo "$folder/token           for the gateway and the services; valid for $days days"
echo "$folder/gateway-tokens  for clients of the gateway, one a line"
