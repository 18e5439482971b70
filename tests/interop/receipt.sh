# Devices with openssl alone, for tests to source: an independent writer of enrolments and receipts.

hex() { od -An -v -tx1 | tr -d ' \n'; }

# enrol DEVICE: makes DEVICE.pem, and enrols its key.
enrol() {
    openssl genpkey -algorithm ed25519 -out "$1.pem"
    mkdir -p enrolments
    printf '{"schema":1,"device":"%s","keys":[%s],"ak":"of no matter here"}' "$1" "$(public "$1")" > "enrolments/$1.json"
}

# public DEVICE: its key as TUF metadata has it, in canonical form.
public() {
    printf '{"keytype":"ed25519","keyval":{"public":"%s"},"scheme":"ed25519"}' \
        "$(openssl pkey -in "$1.pem" -pubout -outform DER | tail -c 32 | hex)"
}

# says DEVICE OUTCOME REASON VERSION SEQUENCE AT: what a device of the canary says of a release of stable/os, kept as a gate keeps it.
says() {
    local manifest body keyid name
    manifest=$(sha256sum < "releases/stable/os/$4/manifest.json" | cut -c1-64)
    body=$(printf '{"at":"%s","channel":"stable","cohort":"canary","device":"%s","from":"0.9.0","hardware":"board-a","manifest":"%s"' "$6" "$1" "$manifest")
    body=$body$(printf ',"outcome":"%s","product":"os","reason":"%s","release":"%s","schema":1,"sequence":%s,"type":"receipt"}' "$2" "$3" "$4" "$5")
    keyid=$(public "$1" | sha256sum | cut -c1-64)
    name=$(printf '%s\n%s' "$body" "$keyid" | sha256sum | cut -c1-64)
    mkdir -p "receipts/receipts/stable/os/$5"
    printf %s "$body" > body
    printf '{"signature":{"keyid":"%s","sig":"%s"},"signed":%s}' "$keyid" \
        "$(openssl pkeyutl -sign -rawin -inkey "$1.pem" -in body | hex)" "$body" > "receipts/receipts/stable/os/$5/$name.json"
    rm body
}
