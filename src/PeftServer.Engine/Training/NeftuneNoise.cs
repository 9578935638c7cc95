using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Training;

/// <summary>
/// NEFTune (<see href="https://arxiv.org/abs/2310.05914"/>): in training the embeddings of a sequence get uniform noise of at most α / √(tokens · width). It sits at the token
/// embedding beside the adapter and saves nothing; evaluations, references and completions have no draws and so no noise.
/// </summary>
internal sealed class NeftuneNoise(double alpha) : SiteAdapter
{
    public override IEnumerable<(string Name, Weight Weight)> State => [];

    /// <summary>Puts the noise at the token embedding of <paramref name="model"/>, for sequences that use <paramref name="adapter"/>.</summary>
    public static void Attach(PretrainedModel model, Adapter adapter, double alpha) =>
        model.Sites().OfType<Embedding>().First().Attach(adapter, new NeftuneNoise(alpha));

    public override Tensor Forward(Tensor x, in SiteCall call)
    {
        var embedded = call.Next(x); // [n, width]
        if (call.Batch.Dropout is not { } draws)
        {
            return embedded;
        }

        using var scope = NewDisposeScope();
        var (starts, width) = (call.Batch.Starts, embedded.size(-1));
        var limits = new List<float>((int)embedded.size(0));
        for (var i = 0; i + 1 < starts.Count; i++)
        {
            var length = starts[i + 1] - starts[i];
            if (starts[i] >= call.Run.Start && starts[i] < call.Run.Start + call.Run.Count)
            {
                limits.AddRange(Enumerable.Repeat((float)(alpha / Math.Sqrt((double)length * width)), length));
            }
        }

        var uniform = rand(embedded.shape, generator: draws).Times(2).Plus(-1); // [n, width], from −1 to 1
        var noise = uniform.mul(tensor(limits.ToArray()).unsqueeze(-1)).to(embedded.dtype, embedded.device);
        return embedded.Plus(noise).MoveToOuterDisposeScope();
    }

    public override void Initialize(Site site, Generator generator)
    {
    }
}
