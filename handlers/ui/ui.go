// Package ui has the page /ui/.
package ui

import "embed"

// Files are those of the page, with index.html.
//
//go:embed *.html
var Files embed.FS
