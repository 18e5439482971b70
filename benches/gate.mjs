#!/usr/bin/env node
// How much one gate does: redirects and grants a second with mutual TLS, p50 and p99, by autocannon; and its memory after many devices.
//
//   npm install --prefix DIR autocannon@8
//   cargo build --release -p tidegate-gate
//   NODE_PATH=DIR/node_modules node benches/gate.mjs target/release/tidegate-gate [SECONDS] [DEVICES]
//
// Connections stay open; handshakes are measured apart, by openssl s_time. The private storage is a bucket whose URLs the gate presigns, so
// that no request goes to a bucket; spent nonces are files on the local disk.
import { execFileSync, spawn } from 'node:child_process'
import { createHash, generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const autocannon = createRequire(process.env.NODE_PATH + '/x')('autocannon')
const [program, seconds = '10', devices = '100000'] = process.argv.slice(2)
const dir = mkdtempSync(join(tmpdir(), 'gate-'))
const openssl = (...words) => execFileSync('openssl', words, { cwd: dir, stdio: 'ignore' })
const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest('hex')

function certificate (name, ca, extension) {
  openssl('req', ...ec, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`)
  writeFileSync(join(dir, `${name}.ext`), `${extension}\nbasicConstraints=CA:FALSE`)
  openssl('x509', '-req', '-in', `${name}.csr`, '-CA', `${ca}.pem`, '-CAkey', `${ca}.key`, '-CAcreateserial', '-days', '9', '-extfile', `${name}.ext`, '-out', `${name}.pem`)
}

for (const ca of ['devices', 'gates']) openssl('req', '-x509', ...ec, '-days', '9', '-keyout', `${ca}.key`, '-out', `${ca}.pem`, '-subj', `/CN=${ca}`)
certificate('gate', 'gates', 'subjectAltName=DNS:localhost')
certificate('device-0001', 'devices', 'extendedKeyUsage=clientAuth')
execFileSync('chmod', ['600', join(dir, 'gate.key')])

const settings = (tls) => `schema = 1
listen = "127.0.0.1:0"
local = "127.0.0.1:0"
secret = "gate.secret"
private = "s3://fleet/private"
state = "file:state"
enrolments = "file:enrolments"
audit = { file = "audit.jsonl" }
[limits]
per_second = 1000000
per_device_per_minute = 100000000
device_burst = 100000000
per_address_per_minute = 100000000
handshakes_per_second = 1000000
handshakes_per_address_per_minute = 100000000
[cohorts."stable.canary"]
least = "none"
${tls}`
writeFileSync(join(dir, 'tls.toml'), settings('[tls]\ncertificate = "gate.pem"\nkey = "gate.key"\ndevice_ca = "devices.pem"\n'))
writeFileSync(join(dir, 'plain.toml'), settings(''))
execFileSync(program, ['-c', join(dir, 'tls.toml'), 'secret'], { stdio: 'ignore' })

async function gate (name) {
  const env = { ...process.env, AWS_ACCESS_KEY_ID: 'x', AWS_SECRET_ACCESS_KEY: 'y', AWS_REGION: 'us-east-1' }
  const child = spawn(program, ['-c', join(dir, name), 'serve'], { env, stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  const line = await new Promise((resolve) => child.stderr.on('data', (data) => { said += data; if (said.includes('\n')) resolve(said) }))
  const memory = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))[1])
  return { child, memory, port: JSON.parse(line.split('\n')[0]).devices.split(':').pop() }
}

const identity = { ca: readFileSync(join(dir, 'gates.pem')), cert: readFileSync(join(dir, 'device-0001.pem')), key: readFileSync(join(dir, 'device-0001.key')), servername: 'localhost' }
const report = (what, run) => console.log(`${what}: ${Math.round(run.requests.average)}/s, p50 ${run.latency.p50} ms, p99 ${run.latency.p99} ms; ${run['2xx']} of 2xx, ${run['3xx']} of 3xx, ${run.non2xx - run['3xx']} others, ${run.errors} errors`)
const post = (path, body) => ({ method: 'POST', path, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })

{
  const { child, memory, port } = await gate('tls.toml')
  const url = `https://localhost:${port}`
  const common = { url, connections: 16, duration: Number(seconds), tlsOptions: identity }
  let token
  const way = [
    { ...post('/v1/challenge', { device: 'device-0001' }), onResponse: (status, body, context) => { context.nonce = JSON.parse(body).nonce } },
    { ...post('/v1/grant', {}), setupRequest: (request, context) => ({ ...request, body: JSON.stringify({ device: 'device-0001', nonce: context.nonce, cohorts: ['stable.canary'], evidence: { kind: 'none' } }) }), onResponse: (status, body) => { token = JSON.parse(body).token } }
  ]
  report('challenges and grants in turn, mutual TLS, 16 connections', await autocannon({ ...common, requests: way }))
  report('redirects, mutual TLS, 16 connections', await autocannon({ ...common, requests: [{ path: '/v1/repo/metadata/1.stable.canary.json', headers: { authorization: `Bearer ${token}` } }] }))
  // Full handshakes with both certificates, and no request.
  const time = ['s_time', '-connect', `localhost:${port}`, '-new', '-time', seconds, '-cert', 'device-0001.pem', '-key', 'device-0001.key', '-CAfile', 'gates.pem']
  const run = spawn('openssl', time, { cwd: dir })
  let text = ''
  for (const stream of [run.stdout, run.stderr]) stream.on('data', (data) => { text += data })
  await new Promise((resolve) => run.on('close', resolve))
  console.log(`handshakes, one after the other: ${text.match(/\d+ connections in \d+ real seconds/)?.[0] ?? text}`)
  console.log(`memory then: ${memory()} kB`)
  child.kill()
}

{
  const count = Number(devices)
  const keys = []
  mkdirSync(join(dir, 'enrolments/keys'), { recursive: true })
  for (let number = 0; number < count; number++) {
    const { publicKey, privateKey } = generateKeyPairSync('ed25519')
    const device = `device-${number}`
    const key = { keytype: 'ed25519', keyval: { public: Buffer.from(publicKey.export({ format: 'jwk' }).x, 'base64url').toString('hex') }, scheme: 'ed25519' }
    const id = sha256(JSON.stringify(key))
    writeFileSync(join(dir, `enrolments/${sha256(device)}.json`), JSON.stringify({ schema: 1, device, keys: [key] }))
    writeFileSync(join(dir, `enrolments/keys/${id}.json`), JSON.stringify({ device }))
    keys.push([device, id, privateKey])
  }
  const { child, memory, port } = await gate('plain.toml')
  const before = memory()
  let next = 0
  const setupRequest = (request) => {
    const [device, id, key] = keys[next++ % count]
    const body = JSON.stringify({ device })
    const [time, random] = [String(Math.floor(Date.now() / 1000)), randomBytes(16).toString('base64url')]
    const message = `tidegate/gate/2\n127.0.0.1\nPOST\n/v1/challenge\n${sha256(body)}\n${sha256('')}\n${time}\n${random}\n`
    return { ...request, body, headers: { ...request.headers, 'tidegate-proof': `${id}.${time}.${random}.${sign(null, message, key).toString('base64url')}` } }
  }
  report(`challenges by ${count} devices with keys, plain HTTP`, await autocannon({ url: `http://127.0.0.1:${port}`, connections: 16, amount: count, requests: [{ ...post('/v1/challenge', {}), setupRequest }] }))
  console.log(`memory: ${before} kB before, ${memory()} kB after ${count} devices`)
  child.kill()
}
rmSync(dir, { recursive: true, force: true })
