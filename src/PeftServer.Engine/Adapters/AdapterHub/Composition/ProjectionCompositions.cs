using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub.Composition;

/// <summary>LoRAs one after another: each takes what the one before made, and the last one's is added.</summary>
internal sealed class StackedProjection(IReadOnlyList<HubProjectionPart> parts) : HubProjectionPart
{
    public override IEnumerable<(string Name, Weight Weight)> State => [];

    public override Tensor Transform(Tensor? state, Tensor x, in SiteCall call)
    {
        foreach (var part in parts)
        {
            state = part.Transform(state, x, call);
        }

        return state!;
    }

    public override Tensor Combine(Tensor y, Tensor state, in SiteCall call) => parts[^1].Combine(y, state, call);

    public override void Initialize(Site site, Generator generator)
    {
    }
}

/// <summary>Σ wᵢ·stateᵢ / n.</summary>
internal sealed class AveragedProjection(IReadOnlyList<HubProjectionPart> parts, IReadOnlyList<double> weights) : HubProjectionPart
{
    public override IEnumerable<(string Name, Weight Weight)> State => [];

    public override Tensor Transform(Tensor? state, Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var sum = parts[0].Transform(state, x, call).Times(weights[0] / parts.Count);
        for (var i = 1; i < parts.Count; i++)
        {
            sum = sum.Plus(parts[i].Transform(state, x, call).Times(weights[i] / parts.Count));
        }

        return sum.MoveToOuterDisposeScope();
    }

    public override Tensor Combine(Tensor y, Tensor state, in SiteCall call) => parts[^1].Combine(y, state, call);

    public override void Initialize(Site site, Generator generator)
    {
    }
}
