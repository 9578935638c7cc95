using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdaptionPrompt;

/// <summary>At GPT-2's projection of queries, keys and values: leaves the queries with the batch.</summary>
internal sealed class KeptQueries(AdaptionPromptPart part) : SiteAdapter
{
    public override IEnumerable<(string Name, Weight Weight)> State => [];

    public override Tensor Forward(Tensor x, in SiteCall call)
    {
        var y = call.Next(x); // [n, 3·H·D]
        call.Batch.Once((part, call.Run.Start), () => y.narrow(1, 0, y.size(1) / 3).view(y.size(0), part.Heads, -1)); // [n, H, D]
        return y;
    }

    public override void Initialize(Site site, Generator generator)
    {
    }
}

/// <summary>Behind GPT-2's output projection: adds what the kept queries find in the vectors.</summary>
internal sealed class AdaptionBehindOutput(AdaptionPromptPart part) : AdditiveSiteAdapter
{
    public override IEnumerable<(string Name, Weight Weight)> State => [];

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var q = call.Batch.Once((part, call.Run.Start), () => throw new InvalidOperationException("The queries did not come by."));
        return part.Delta(q, default).reshape(x.size(0), -1).to(x.dtype).MoveToOuterDisposeScope(); // [n, H·D]
    }

    public override void Initialize(Site site, Generator generator)
    {
    }
}
