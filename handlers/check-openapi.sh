#!/usr/bin/env bash
# Checks openapi.yaml as its readers do: linters that must have nothing to say, and generators whose clients must compile.
# It needs Go, Node.js 18 or later, npm, and the network for the pinned tools. It works in a temporary folder.
set -euo pipefail
cd "$(dirname "$0")"
document=$PWD/openapi.yaml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

echo "openapi: installing the tools"
npm install --prefix . --no-audit --no-fund --loglevel=error --update-notifier=false \
  @redocly/cli@1.34.15 @stoplight/spectral-cli@6.16.3 openapi-typescript@7.13.0 typescript@5.9.3
export PATH=$work/node_modules/.bin:$PATH REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true

# Off: two responses belong to requests that no operation gets (404, 405); a summary is enough where there is nothing to
# add; and whom to contact is known to those who run a server.
echo "openapi: linting with Redocly"
redocly lint --extends recommended-strict --skip-rule no-unused-components "$document"
echo "openapi: linting with Spectral"
cat >spectral.yaml <<'YAML'
extends: spectral:oas
rules: {oas3-unused-component: off, operation-description: off, info-contact: off}
YAML
spectral lint --ruleset spectral.yaml --fail-severity hint "$document"

echo "openapi: a client in TypeScript"
openapi-typescript "$document" --output api.ts
cat >main.ts <<'TS'
import type { components, operations, paths } from "./api";

const request: components["schemas"]["PortRequest"] = { name: "web-01", lease: "1h30m", prefer: 5010 };
export const body: operations["offer"]["requestBody"]["content"]["application/json"] = [request, { name: "web-02", lease: 90 }];
export const definition: components["schemas"]["ServiceDefinition"] = { name: "django", start: 5000, end: 10000 };
export type Params = paths["/v1/pools/{pool}/services/{service}/ports/{port}"]["delete"]["parameters"];
export const params: Params = { path: { pool: "default", service: "django", port: "web-01" }, header: { "If-Match": '"17"' } };
type Conflict = operations["offer"]["responses"]["409"]["content"]["application/problem+json"];
export const isTaken = (problem: Conflict): boolean => problem.code === "NAME_TAKEN";
// @ts-expect-error: a request has a name
export const nameless: components["schemas"]["PortRequest"] = { lease: 90 };
TS
tsc --noEmit --strict --target es2022 --module nodenext api.ts main.ts

echo "openapi: a client in Go"
cat >go.mod <<'MOD'
module client

go 1.26
MOD
go get github.com/oapi-codegen/runtime@v1.9.0 2>/dev/null
go run github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2 -generate types,client -package main -o api.go "$document"
cat >main.go <<'GO'
package main

import "context"

func main() {
	client, err := NewClientWithResponses("http://127.0.0.1:8080")
	if err != nil {
		panic(err)
	}
	var lease Lease
	var body RequestOrList
	if lease.FromLease1("1h30m") != nil || body.FromPortRequest(PortRequest{Name: "web-01", Lease: &lease}) != nil {
		panic("no request")
	}
	answer, err := client.OfferWithResponse(context.Background(), "default", "django", nil, body)
	if err != nil || answer.JSON201 == nil {
		panic(answer.ApplicationproblemJSON409.Detail)
	}
	offer, err := answer.JSON201.AsOffer()
	println(offer.Port, err)
}
GO
go mod tidy 2>/dev/null
go vet .
echo "openapi: linters and generators have nothing to say against it"
