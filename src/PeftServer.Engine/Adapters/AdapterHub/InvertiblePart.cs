using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// A NICE coupling block behind the embeddings (<see href="https://arxiv.org/abs/2005.00052">Pfeiffer et al. 2020</see>):
/// a ← a + F(b), b ← b + G(a) on the halves of each state. Where the library undoes it, it is undone before the head.
/// </summary>
internal sealed class InvertiblePart : HiddenPart
{
    private readonly DenseLinear[] _layers; // F.0, F.2, G.0, G.2
    private readonly Func<Tensor, Tensor> _act;
    private readonly int _half;

    private InvertiblePart(BottleneckConfig config, int width)
    {
        _half = width / 2;
        var (first, second) = (_half, width - _half);
        int Inner(int size) => (int)Math.Floor(size / (config.InvAdapterReductionFactor ?? 2));
        _layers = [new(second, Inner(second)), new(Inner(second), first), new(first, Inner(first)), new(Inner(first), second)];
        _act = HubActivation.Of(config.NonLinearity);
    }

    public override IEnumerable<(string Name, Weight Weight)> State =>
        _layers.Zip(["F.0", "F.2", "G.0", "G.2"]).SelectMany(entry => entry.First.State.Select(state => ($"{entry.Second}.{state.Name}", state.Weight)));

    public static void Attach(BottleneckConfig config, HubAdapter adapter)
    {
        foreach (var site in adapter.Model.Modules().OfType<HiddenSite>().Where(site => site.Layer < 0))
        {
            var part = new InvertiblePart(config, site.Width);
            adapter.Attach(site, part, "");
            if (adapter.Architecture.IsPlugin && adapter.Model.OutputHead is { } path && adapter.Model.Find(path) is Site head)
            {
                adapter.Attach(head, new Inverse(part), "");
            }
        }
    }

    public override Tensor Forward(Tensor x, ForwardBatch batch, AdapterRun run)
    {
        using var scope = NewDisposeScope();
        var (a, b) = Halves(x);
        a = a.Plus(Net(0, b));
        b = b.Plus(Net(2, a));
        return cat([a, b], -1).MoveToOuterDisposeScope(); // [n, width]
    }

    /// <summary>What <see cref="Forward"/> was given for x.</summary>
    public Tensor Invert(Tensor x)
    {
        using var scope = NewDisposeScope();
        var (a, b) = Halves(x);
        b = b.Minus(Net(2, a));
        a = a.Minus(Net(0, b));
        return cat([a, b], -1).MoveToOuterDisposeScope(); // [n, width]
    }

    public override void Initialize(Generator generator, Device device) =>
        Array.ForEach(_layers, layer => layer.Initialize(LinearStart.Bert, generator, device));

    private (Tensor, Tensor) Halves(Tensor x) => (x.narrow(-1, 0, _half), x.narrow(-1, _half, x.size(-1) - _half));

    private Tensor Net(int first, Tensor x) => _layers[first + 1].Forward(_act(_layers[first].Forward(x)));

    /// <summary>Undoes the block before the projection that makes logits.</summary>
    private sealed class Inverse(InvertiblePart part) : SiteAdapter
    {
        public override IEnumerable<(string Name, Weight Weight)> State => [];

        public override Tensor Forward(Tensor x, in SiteCall call)
        {
            using var scope = NewDisposeScope();
            return call.Next(part.Invert(x)).MoveToOuterDisposeScope();
        }

        public override void Initialize(Site site, Generator generator)
        {
        }
    }
}
