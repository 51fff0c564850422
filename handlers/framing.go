package handlers

import (
	"bytes"

	"github.com/valyala/fasthttp"
)

// isUnambiguous reports whether every server on the way reads a request's header as this one does. fasthttp bears with
// lines that end in a bare LF or go on in the next one, with two lengths of one body, and with trailers, which it takes
// for headers: by them what one server took for one request could be two to the next, or prove what its sender never said.
func isUnambiguous(header *fasthttp.RequestHeader) bool {
	if len(header.Peek(fasthttp.HeaderTrailer)) > 0 { // announced, or come unannounced
		return false
	}
	if version := string(header.Protocol()); version != "HTTP/1.1" && version != "HTTP/1.0" {
		return false
	}
	lengths := 0
	for raw := header.RawHeaders(); len(raw) > 0; {
		end := bytes.IndexByte(raw, '\n')
		if end < 1 || raw[end-1] != '\r' || raw[0] == ' ' || raw[0] == '\t' {
			return false
		}
		if isField(raw, fasthttp.HeaderContentLength) || isField(raw, fasthttp.HeaderTransferEncoding) {
			lengths++
		}
		raw = raw[end+1:]
	}
	return lengths <= 1
}

// isField reports whether a line is the field of that name.
func isField(line []byte, name string) bool {
	return len(line) > len(name) && line[len(name)] == ':' && bytes.EqualFold(line[:len(name)], []byte(name))
}
