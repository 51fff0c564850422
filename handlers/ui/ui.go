// Package ui has the files of the map, the page that shows pools, services and their ports in a browser.
package ui

import "embed"

// Files are the files of the page. It begins with index.html.
//
//go:embed *.html *.css *.js *.svg
var Files embed.FS
