package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"portmaster/allocator"
	"portmaster/config"
	"portmaster/handlers"
	"portmaster/handlers/connection"
	"portmaster/handlers/identity"
)

func serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "serve",
		Short:   "Serve the HTTP API",
		Long:    "Serve the HTTP API until SIGTERM, then let open requests finish. Settings are environment variables:\n\n" + config.Help(),
		Example: "  PORTMASTER_REDIS_URL=redis://localhost:6379 portmaster serve",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := config.Load()
			if err != nil {
				return err
			}
			return serve(cmd.Context(), settings, newLogger(os.Stderr, settings))
		},
	}
}

// serve wires the packages together and serves until ctx is done; then it drains. It returns nil if every open request
// could finish.
func serve(ctx context.Context, settings config.Config, log *slog.Logger) error {
	if unknown := config.Unknown(); len(unknown) > 0 {
		log.Warn("unknown settings are ignored; see portmaster serve --help", slog.String("variables", strings.Join(unknown, " ")))
	}
	listener, err := listen("HTTP_ADDR", settings.HTTPAddr)
	if err != nil {
		return err
	}
	defer listener.Close()
	background, stopBackground := context.WithCancel(context.Background())
	defer stopBackground()
	auth, err := authenticator(background, settings, listener.Addr(), log)
	if err != nil {
		return err
	}
	var opsListener net.Listener
	if settings.OpsAddr != "" {
		if opsListener, err = listen("OPS_ADDR", settings.OpsAddr); err != nil {
			return err
		}
		defer opsListener.Close()
	}
	cert, err := openCertificate(settings, log)
	if err != nil {
		return err
	}
	audit, err := openAudit(settings)
	if err != nil {
		return err
	}
	store, err := openStore(settings, log)
	if err != nil {
		return err
	}
	defer store.Close()

	traces, err := openTraces(ctx, log)
	if err != nil {
		return err
	}
	ofPorts, ofServer := options(settings), serverOptions(settings, log, auth, cert, audit)
	ofPorts.Trace, ofServer.Tracer = traces.redis(), traces.tracer
	ports := allocator.New(store.client, ofPorts)
	ballast := make([]byte, ballastSize)
	defer runtime.KeepAlive(ballast)
	if err := greet(ctx, ports, log); err != nil {
		return err
	}
	server := handlers.New(ports, ofServer)
	uuid.EnableRandPool() // one system call for many secrets and request ids, instead of one for each
	go watch(background, ports, log)
	go audit.follow(background, log)
	served := make(chan error, 2)
	if opsListener != nil {
		go func() { served <- server.ServeOps(opsListener) }()
		log.Info("serving operators", slog.String("address", opsListener.Addr().String()))
	}
	go func() { served <- server.Serve(cert.listen(background, listener)) }()
	site := siteOf(listener.Addr(), cert.Certificate != nil)
	log.Info("serving", slog.String("address", listener.Addr().String()), slog.String("version", version()),
		slog.String("map", site+"/ui/"), slog.String("docs", site+"/docs/"))

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	log.Info("stopping: no longer ready", slog.Duration("delay", settings.ShutdownDelay))
	server.Drain()
	time.Sleep(settings.ShutdownDelay)
	ending, end := context.WithTimeout(context.Background(), settings.ShutdownTimeout)
	defer end()
	err = server.Shutdown(settings.ShutdownTimeout)
	traces.close(ending)
	if err != nil {
		return fmt.Errorf("requests were still open after %s: %w", settings.ShutdownTimeout, err)
	}
	log.Info("stopped")
	return nil
}

// ballastSize is a part of the heap that is never used. The collector runs when the heap has doubled: that of a server under load has some
// megabytes, so that it ran twelve times a second. With the ballast p99 is a tenth lower, and such a server takes 14 MB more.
const ballastSize = 8 << 20

// listen opens the listener of a setting.
func listen(setting, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s_%s: %w", config.Prefix, setting, err)
	}
	return connection.Patient(l), nil
}

// siteOf returns the URL by which a browser on this machine reaches a listener.
func siteOf(addr net.Addr, isTLS bool) string {
	host := addr.String()
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		host = net.JoinHostPort("localhost", strconv.Itoa(tcp.Port))
	}
	if isTLS {
		return "https://" + host
	}
	return "http://" + host
}

// serverOptions are the settings of the HTTP server.
func serverOptions(settings config.Config, log *slog.Logger, auth *identity.Authenticator, cert serverCertificate, audit audit) handlers.Options {
	return handlers.Options{
		ReadTimeout:  settings.HTTPReadTimeout,
		WriteTimeout: settings.HTTPWriteTimeout,
		IdleTimeout:  settings.HTTPIdleTimeout,
		BodyLimit:    settings.HTTPBodyLimit,
		Concurrency:  settings.HTTPConcurrency,
		MaxStreams:   settings.MaxStreams,
		SlowCall:     settings.LogSlowCall,
		Log:          log,
		Auth:         auth,
		Hosts:        settings.Hosts,
		Audit:        audit.Audit,
		Metrics:      slices.Concat(cert.metrics(), audit.metrics()),
	}
}

// options are the settings of the allocator.
func options(settings config.Config) allocator.Options {
	return allocator.Options{
		KeyPrefix:     settings.KeyPrefix,
		OfferTTL:      settings.OfferTTL,
		PortMin:       settings.PortMin,
		PortMax:       settings.PortMax,
		Timeout:       settings.RedisTimeout,
		Queue:         settings.RedisQueue,
		Replicas:      int(settings.Durability),
		MaxRollback:   settings.MaxRollback,
		AllowVolatile: settings.AllowVolatile,
		MaxServices:   settings.MaxServices,
		MaxPools:      settings.MaxPools,
		History:       settings.History,

		MaxWait:            settings.MaxWait,
		MaxWaiting:         settings.MaxWaiting,
		MaxPorts:           settings.MaxPorts,
		Quarantine:         settings.Quarantine,
		ReleaseNeedsSecret: settings.ReleaseNeedsSecret,
	}
}

func newLogger(out io.Writer, settings config.Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: settings.LogLevel}
	if settings.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(out, options))
	}
	return slog.New(slog.NewTextHandler(out, options))
}
