using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Xlora;

/// <summary>At one module: what each expert adds for the share of x that the mix gives it.</summary>
internal sealed class XloraPart(XloraAdapter adapter, IReadOnlyList<AdditiveSiteAdapter?> experts, int layer) : AdditiveSiteAdapter
{
    /// <summary>The experts' weights are in their own files.</summary>
    public override IEnumerable<(string Name, Weight Weight)> State => [];

    public override bool SavesBaseLayer => false;

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        if (x.size(0) != call.Run.Count)
        {
            throw new NotSupportedException($"X-LoRA with experts at {call.Site.Path} is not supported: only some tokens come there. Use experts without it.");
        }

        var mix = adapter.MixAt(adapter.Mixes(call.Batch, call.Run), layer).to(x.dtype); // [n, experts]
        Tensor? sum = null;
        for (var i = 0; i < experts.Count; i++)
        {
            if (experts[i] is { } expert)
            {
                var delta = expert.Delta(x.mul(mix.narrow(1, i, 1)), call); // [n, out]
                sum = sum is null ? delta : sum.Plus(delta);
            }
        }

        return sum!.Times(adapter.Weight).MoveToOuterDisposeScope();
    }

    public override void Initialize(Site site, Generator generator)
    {
    }
}
