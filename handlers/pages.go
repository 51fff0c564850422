package handlers

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"

	"github.com/gofiber/fiber/v2"

	"portmaster/handlers/docs"
	"portmaster/handlers/ui"
)

// webPages returns the pages for browsers. They are embedded files and hold no data, so everybody may read them, by any Host: what
// they show comes from the routes of the API, which ask who calls.
func webPages() []webPage {
	return []webPage{
		{"/ui", policy + neverMarkup, embedded(ui.Files)},
		{"/docs", policy + "; img-src 'self' data:", append(embedded(docs.Files), embedded(docs.SwaggerUI, docs.SwaggerUIFiles...)...)},
	}
}

// policy is the Content-Security-Policy of a page: all that it loads and asks is this server's, nothing is inline, and no other page
// may frame it.
const policy = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// neverMarkup has the browser refuse every text that a script would make into markup or a script, such as the name of a holder.
const neverMarkup = "; require-trusted-types-for 'script'; trusted-types 'none'"

// webPage is a folder of files that a browser shows.
type webPage struct {
	path   string // of the folder, without the slash at its end
	policy string
	files  []file
}

// file is a file of a page. It has one ETag for both encodings, which is weak for that reason.
type file struct {
	name        string // below its page, "" for index.html
	contentType string
	etag        string
	gzipped     []byte // nil if the file is kept as it is
	plain       func() []byte
}

// contentTypes are those of the files, by the end of their names. The types that the machine knows would differ from one to another.
var contentTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".png":  "image/png",
	".svg":  "image/svg+xml",
}

// embedded returns the files of those names, or all. It panics if one cannot be served, which the build has decided.
func embedded(from fs.FS, names ...string) []file {
	if names == nil {
		err := fs.WalkDir(from, ".", func(name string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				names = append(names, name)
			}
			return err
		})
		if err != nil {
			panic(err)
		}
	}
	var files []file
	for _, name := range names {
		files = append(files, newFile(from, name))
	}
	return files
}

func newFile(from fs.FS, name string) file {
	content, err := fs.ReadFile(from, name)
	if err != nil {
		panic(err)
	}
	f := file{etag: fmt.Sprintf(`W/"%.12x"`, sha256.Sum256(content))}
	served, isGzipped := strings.CutSuffix(name, ".gz")
	f.plain = func() []byte { return content }
	if isGzipped {
		f.gzipped = content
		f.plain = sync.OnceValue(func() []byte { return gunzip(content) }) // browsers take it compressed
	}
	f.contentType = contentTypes[path.Ext(served)]
	if f.contentType == "" {
		panic("no content type for " + name)
	}
	f.name = strings.TrimSuffix(served, "index.html")
	return f
}

func gunzip(content []byte) []byte {
	reader, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		panic(err)
	}
	plain, err := io.ReadAll(reader)
	if err != nil {
		panic(err)
	}
	return plain
}

// mountPages adds a route for each file, so that an unknown one is an unknown route. In metrics and logs a page is one route.
func (s *Server) mountPages() {
	for _, p := range webPages() {
		at := func(path string, handle func(*Server, *fiber.Ctx) error) {
			s.app.Get(path, s.observe(route{"GET", p.path + "/*", "page", everybody, nil, handle})) // Fiber serves HEAD by it, too
		}
		at(p.path, func(_ *Server, c *fiber.Ctx) error {
			return c.Redirect(path.Base(p.path)+"/", fiber.StatusPermanentRedirect) // relative: a proxy may put a prefix before it
		})
		for _, f := range p.files {
			at(p.path+"/"+f.name, func(_ *Server, c *fiber.Ctx) error {
				f.render(c, p.policy)
				return nil
			})
		}
	}
}

// render answers with the file, or with 304 if the browser has it.
func (f *file) render(c *fiber.Ctx, policy string) {
	c.Set(fiber.HeaderETag, f.etag)
	c.Set(fiber.HeaderCacheControl, "no-cache") // ask each time whether it is still the same, since the next version has the same names
	c.Set(fiber.HeaderContentSecurityPolicy, policy)
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	c.Set(fiber.HeaderReferrerPolicy, "no-referrer")
	c.Set("Cross-Origin-Opener-Policy", "same-origin")
	c.Set("Cross-Origin-Resource-Policy", "same-origin")
	if f.gzipped != nil {
		c.Set(fiber.HeaderVary, fiber.HeaderAcceptEncoding)
	}
	if c.Get(fiber.HeaderIfNoneMatch) != "" && c.Fresh() {
		c.Status(fiber.StatusNotModified)
		return
	}
	c.Set(fiber.HeaderContentType, f.contentType)
	if f.gzipped != nil && c.Request().Header.HasAcceptEncoding("gzip") {
		c.Set(fiber.HeaderContentEncoding, "gzip")
		c.Response().SetBodyRaw(f.gzipped)
		return
	}
	c.Response().SetBodyRaw(f.plain())
}
