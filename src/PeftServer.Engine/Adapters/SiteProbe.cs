using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters;

/// <summary>Something that looks on at some sites of a model while it is on, and changes nothing.</summary>
internal sealed class SiteProbe : Adapter
{
    /// <summary>Looks on at <paramref name="sites"/>: each is run by <paramref name="look"/>, which gets the site and its input [n, in] and gives its output.</summary>
    public SiteProbe(AdapterConfig config, PretrainedModel model, IEnumerable<Projection> sites, Func<Projection, Tensor, SiteCall, Tensor> look)
        : base(config, model)
    {
        foreach (var site in sites)
        {
            Attach(site, new Part(look));
        }
    }

    private sealed class Part(Func<Projection, Tensor, SiteCall, Tensor> look) : SiteAdapter
    {
        public override IEnumerable<(string Name, Weight Weight)> State => [];

        public override Tensor Forward(Tensor x, in SiteCall call) => look((Projection)call.Site, x, call);

        public override void Initialize(Site site, Generator generator)
        {
        }
    }
}
