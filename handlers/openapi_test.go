package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"portmaster/allocator"
	"portmaster/allocator/storetest"
)

// document is openapi.yaml.
var document = sync.OnceValue(func() *openapi3.T {
	openapi3filter.RegisterBodyDecoder("text/event-stream", openapi3filter.PlainBodyDecoder)
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		panic(err)
	}
	return doc
})

func TestDocumentIsValid(t *testing.T) {
	doc := document()
	equal(t, "version", doc.OpenAPI, "3.1.0")
	// IsOpenAPI31OrLater also compiles every schema as JSON Schema 2020-12.
	err := doc.Validate(t.Context(), openapi3.IsOpenAPI31OrLater(), openapi3.EnableExamplesValidation(), openapi3.EnableSchemaFormatValidation())
	if err != nil {
		t.Error(err)
	}
}

func TestDocumentIsServed(t *testing.T) {
	a := newAPI(t, storetest.Mini(t))
	r := a.get("/openapi.yaml").want(200)
	equal(t, "Content-Type", r.header.Get("Content-Type"), "application/yaml")
	equal(t, "body", r.body, string(openAPI))
}

// The route table and the document name the same routes.
func TestDocumentHasEveryRoute(t *testing.T) {
	var routes, operations []string
	braces := regexp.MustCompile(`:([a-z]+)`)
	seen := map[string]bool{}
	add := func(mount string, table []route) {
		for _, r := range table {
			id := r.operation
			if seen[id] { // another way to say it
				id += "By" + r.method[:1] + strings.ToLower(r.method[1:])
			}
			seen[r.operation] = true
			routes = append(routes, r.method+" "+mount+braces.ReplaceAllString(r.path, "{$1}")+" "+id)
		}
	}
	add(poolPath, poolRoutes)
	add("", serverRoutes)
	for path, item := range document().Paths.Map() {
		for method, operation := range item.Operations() {
			operations = append(operations, method+" "+path+" "+operation.OperationID)
		}
	}
	sameWords(t, "routes of the table", routes, "of the document", operations)
}

// A route takes the query parameters that the document lists for it.
func TestDocumentHasEveryQuery(t *testing.T) {
	braces := regexp.MustCompile(`:([a-z]+)`)
	compare := func(mount string, table []route) {
		for _, r := range table {
			item := document().Paths.Value(mount + braces.ReplaceAllString(r.path, "{$1}"))
			var listed []string
			for _, parameter := range item.GetOperation(r.method).Parameters {
				if parameter.Value.In == "query" {
					listed = append(listed, parameter.Value.Name)
				}
			}
			equal(t, r.method+" "+r.path, strings.Join(r.query, " "), strings.Join(listed, " "))
		}
	}
	compare(poolPath, poolRoutes)
	compare("", serverRoutes)
}

// A code is known to the document where it is known to the program, and every operation says which it gives.
func TestDocumentHasEveryCode(t *testing.T) {
	var listed []string
	schemas := document().Components.Schemas
	for _, code := range schemas["Problem"].Value.Properties["code"].Value.Enum {
		listed = append(listed, code.(string))
	}
	sameWords(t, "codes of the program", slices.Collect(maps.Keys(problems)), "of the document", listed)

	var given []string
	documented(func(where string, status string, response *openapi3.Response) {
		if media := response.Content["application/problem+json"]; media != nil {
			codes := codesOf(media.Schema)
			if len(codes) == 0 {
				t.Errorf("%s %s lists no codes", where, status)
			}
			sameWords(t, where+" "+status+": codes", codes, "with an example", slices.Collect(maps.Keys(media.Examples)))
			for _, code := range codes {
				if want := fmt.Sprint(problems[code].status); want != status {
					t.Errorf("%s lists %s at %s, and not at %s", where, code, status, want)
				}
			}
			given = append(given, codes...)
		} else if status >= "400" {
			t.Errorf("%s %s is no application/problem+json", where, status)
		}
		if response.Headers["X-Request-ID"] == nil {
			t.Errorf("%s %s lacks X-Request-ID", where, status)
		}
	})
	slices.Sort(given)
	sameWords(t, "codes that some answer gives", slices.Compact(given), "of the document", listed)
}

// The document has one example of each code, which has the words of the program.
func TestDocumentHasExampleOfEveryCode(t *testing.T) {
	examples := document().Components.Examples
	sameWords(t, "codes of the program", slices.Collect(maps.Keys(problems)), "with an example", slices.Collect(maps.Keys(examples)))
	for code, example := range examples {
		text, err := json.Marshal(example.Value.Value)
		if err != nil {
			t.Fatal(err)
		}
		var shown problem
		if err := json.Unmarshal(text, &shown); err != nil {
			t.Fatal(err)
		}
		made := bodyOfProblem(code, &allocator.Error{}, "")
		equal(t, code+": type", shown.Type, made.Type)
		equal(t, code+": title", shown.Title, made.Title)
		equal(t, code+": status", shown.Status, made.Status)
		equal(t, code+": code", shown.Code, made.Code)
		if (code == string(allocator.CodeInvalid)) != (len(shown.Errors) > 0) {
			t.Errorf("%s: errors are %v", code, shown.Errors)
		}
	}
}

// documented walks every response that the document describes.
func documented(visit func(where, status string, response *openapi3.Response)) {
	for path, item := range document().Paths.Map() {
		for method, operation := range item.Operations() {
			for status, response := range operation.Responses.Map() {
				visit(method+" "+path, status, response.Value)
			}
		}
	}
	for status, name := range unmatchedResponses {
		visit(name, fmt.Sprint(status), document().Components.Responses[name].Value)
	}
}

// codesOf returns the codes beside a reference to Problem.
func codesOf(schema *openapi3.SchemaRef) (codes []string) {
	for _, part := range schema.Value.AllOf {
		if part.Ref != "" { // Problem itself, which has every code
			continue
		}
		if code := part.Value.Properties["code"]; code != nil {
			for _, word := range code.Value.Enum {
				codes = append(codes, word.(string))
			}
		}
	}
	return codes
}

func sameWords(t *testing.T, what string, a []string, others string, b []string) {
	t.Helper()
	for _, word := range a {
		if !slices.Contains(b, word) {
			t.Errorf("%s: %s is not one %s", what, word, others)
		}
	}
	for _, word := range b {
		if !slices.Contains(a, word) {
			t.Errorf("%s: %s is only one %s", what, word, others)
		}
	}
	if len(a) != len(b) || len(a) == 0 {
		t.Errorf("%s: %d, %s: %d", what, len(a), others, len(b))
	}
}

// unmatchedResponses are the components for requests that no operation is asked by.
var unmatchedResponses = map[int]string{
	400: "Invalid", 404: "NotFound", 405: "MethodNotAllowed", 408: "Timeout", 413: "TooLarge",
}

// holdAgainstDocument says how an answer differs from what openapi.yaml says of it: an undocumented status, header or
// body. A request that succeeds must be one that the document allows.
func holdAgainstDocument(request *http.Request, path string, sent []byte, response *http.Response, body []byte) error {
	path, _, _ = strings.Cut(path, "?")
	found, params := operationOf(request.Method, path)
	if found == nil {
		found = &routers.Route{Spec: document(), Operation: &openapi3.Operation{Responses: &openapi3.Responses{}}}
		if name, ok := unmatchedResponses[response.StatusCode]; ok {
			found.Operation.AddResponse(response.StatusCode, document().Components.Responses[name].Value)
		} else {
			return errors.New("no operation, and yet not refused")
		}
	}
	described := found.Operation.Responses.Status(response.StatusCode)
	if described == nil {
		return fmt.Errorf("%s does not list status %d", found.Operation.OperationID, response.StatusCode)
	}
	allowed := []string{"Date", "Connection", "Content-Length", "Content-Type"}
	for name := range described.Value.Headers {
		allowed = append(allowed, http.CanonicalHeaderKey(name))
	}
	for name := range response.Header {
		if !slices.Contains(allowed, name) {
			return fmt.Errorf("the header %s is not documented", name)
		}
	}
	empty := request.Method == http.MethodHead || response.StatusCode == http.StatusNoContent
	if empty && len(body) > 0 {
		return errors.New("a body where none may be")
	}
	input := &openapi3filter.RequestValidationInput{
		Request: &http.Request{Method: http.MethodGet, URL: request.URL, Header: request.Header}, PathParams: params, Route: found,
	}
	answer := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: response.StatusCode, Header: response.Header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true, ExcludeResponseBody: empty},
	}
	if err := openapi3filter.ValidateResponse(context.Background(), answer.SetBodyBytes(body)); err != nil {
		return err
	}
	if response.StatusCode < 300 && request.URL != nil {
		if err := refusal(request, sent); err != nil {
			return fmt.Errorf("the request should have been refused: %w", err)
		}
	}
	return nil
}

// refusal says why openapi.yaml refuses a request to one of its operations.
func refusal(request *http.Request, sent []byte) error {
	found, params := operationOf(request.Method, request.URL.EscapedPath())
	input := &openapi3filter.RequestValidationInput{Request: request.Clone(context.Background()), PathParams: params, Route: found}
	input.Request.Body = io.NopCloser(bytes.NewReader(sent))
	input.Request.ContentLength = int64(len(sent))
	input.Options = &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}
	if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
		return err
	}
	if found.Operation.RequestBody != nil && len(sent) > 0 && !json.Valid(sent) {
		return errors.New("the body is no JSON") // behind what the validator reads
	}
	if !strings.HasPrefix(request.URL.Path, "/v1/") {
		return nil
	}
	given, err := url.ParseQuery(request.URL.RawQuery)
	for name, values := range given {
		if found.Operation.Parameters.GetByInAndName("query", name) == nil || len(values) != 1 || values[0] == "" {
			return fmt.Errorf("the query parameter %q is unknown, or given twice or without a value", name)
		}
	}
	return err
}

// operationOf finds the operation of a request. HEAD is asked as GET.
func operationOf(method, path string) (*routers.Route, map[string]string) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	below, ok := strings.CutPrefix(path, defaultMount+"/")
	if ok && below != "pools" && !strings.HasPrefix(below, "pools/") { // the shorter path of the pool "default"
		path = strings.Replace(poolPath, "{pool}", allocator.DefaultPool, 1) + "/" + below
	}
	for _, p := range templates() {
		values := p.pattern.FindStringSubmatch(path)
		if values == nil || p.item.GetOperation(method) == nil {
			continue
		}
		params := map[string]string{}
		for i, name := range p.pattern.SubexpNames() {
			if params[name] = values[i]; strings.Contains(values[i], "%") {
				params[name], _ = url.PathUnescape(values[i])
			}
		}
		return &routers.Route{Spec: document(), Path: path, PathItem: p.item, Method: method, Operation: p.item.GetOperation(method)}, params
	}
	return nil, nil
}

type template struct {
	pattern *regexp.Regexp
	item    *openapi3.PathItem
}

// templates are the paths of the document.
var templates = sync.OnceValue(func() (all []template) {
	variable := regexp.MustCompile(`\{(\w+)\}`)
	for path, item := range document().Paths.Map() {
		all = append(all, template{regexp.MustCompile("^" + variable.ReplaceAllString(path, `(?P<$1>[^/]+)`) + "$"), item})
	}
	return all
})
