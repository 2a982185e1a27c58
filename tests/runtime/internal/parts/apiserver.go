package parts

import (
	"context"
	"net"
	"net/http"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// Front is what the supervisor adds to the API server: the listener that it
// opened early, its own paths, and what to do before the API server takes the
// listener over.
type Front struct {
	Listener net.Listener
	Wrap     func(http.Handler) http.Handler
	TakeOver func()
}

// APIServer runs kube-apiserver on the supervisor's listener.
func APIServer(ctx context.Context, args []string, front Front) error {
	opts := options.NewServerRunOptions()
	if err := parseNamed("kube-apiserver", opts.Flags(), args); err != nil {
		return err
	}
	opts.SecureServing.Listener = front.Listener
	registry := opts.GenericServerRunOptions.ComponentGlobalsRegistry
	if err := registry.Set(); err != nil {
		return err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	gate := registry.FeatureGateFor(basecompatibility.DefaultKubeComponent)
	if err := logsapi.ValidateAndApply(opts.Logs, gate); err != nil {
		return err
	}
	completed, err := opts.Complete(ctx)
	if err != nil {
		return err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return utilerrors.NewAggregate(errs)
	}
	if mutable, ok := gate.(featuregate.MutableFeatureGate); ok {
		mutable.AddMetrics()
	}
	return serveAPI(ctx, completed, front)
}

// serveAPI builds the three chained API servers and runs them.
func serveAPI(ctx context.Context, opts options.CompletedOptions, front Front) error {
	config, err := app.NewConfig(opts)
	if err != nil {
		return err
	}
	generic := config.Aggregator.GenericConfig
	build := generic.BuildHandlerChainFunc
	generic.BuildHandlerChainFunc = func(api http.Handler, c *genericapiserver.Config) http.Handler {
		return front.Wrap(build(api, c))
	}
	// From here on the API server calls itself: the listener must be its own,
	// and what arrives before it accepts waits.
	front.TakeOver()
	completed, err := config.Complete()
	if err != nil {
		return err
	}
	aggregator, err := app.CreateServerChain(completed)
	if err != nil {
		return err
	}
	prepared, err := aggregator.PrepareRun()
	if err != nil {
		return err
	}
	return prepared.Run(ctx)
}
