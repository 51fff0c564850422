// Package docs has the page /docs/, which shows openapi.yaml in Swagger UI.
package docs

import (
	"embed"
	"io/fs"

	"github.com/swaggest/swgui/v5/static"
)

// Files are the page's own: index.html, and what tells Swagger UI how to start.
//
//go:embed *.html *.js *.css
var Files embed.FS

// SwaggerUI has the parts of Swagger UI that the page uses, compressed with gzip, under the names SwaggerUIFiles.
var SwaggerUI fs.FS = static.FS

// SwaggerUIFiles are the names of the files in SwaggerUI that the page loads.
var SwaggerUIFiles = []string{"swagger-ui-bundle.js.gz", "swagger-ui.css.gz"}
