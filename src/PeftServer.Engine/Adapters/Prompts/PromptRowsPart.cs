using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Prompts;

/// <summary>At the embedding of tokens: the adapter's rows where a batch has room for a prompt.</summary>
internal sealed class PromptRowsPart(PromptAdapter adapter) : SiteAdapter
{
    public override IEnumerable<(string Name, Weight Weight)> State => [];

    public override Tensor Forward(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var (batch, run, frozen) = (call.Batch, call.Run, call.Next(x)); // [n, width]
        var (pieces, at, scale) = (new List<Tensor>(), run.Start, ((Embedding)call.Site).LookupScale);
        for (var i = 0; i < batch.SequenceCount; i++)
        {
            if (batch.Starts[i] >= run.Start && batch.Starts[i] < run.Start + run.Count && batch.PromptRows[i] > 0)
            {
                pieces.Add(frozen.narrow(0, at - run.Start, batch.Starts[i] - at));
                var task = batch.TaskOf(i);
                var rows = batch.Once((adapter, task), () => adapter.RowsFor(task, batch.Dropout)).narrow(0, 0, batch.PromptRows[i]); // [P, width]
                pieces.Add((scale == 1 ? rows : rows.Times(1 / scale)).to(frozen.dtype)); // the model will scale them
                at = batch.Starts[i] + batch.PromptRows[i];
            }
        }

        pieces.Add(frozen.narrow(0, at - run.Start, run.Start + run.Count - at));
        return cat([.. pieces], 0).MoveToOuterDisposeScope(); // [n, width]
    }

    public override void Initialize(Site site, Generator generator)
    {
    }
}
