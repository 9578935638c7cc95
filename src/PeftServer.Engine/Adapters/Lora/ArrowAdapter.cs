using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>How Arrow routes.</summary>
/// <param name="TopK">Adapters that a token uses.</param>
/// <param name="RouterTemperature">Divides the scores before the softmax.</param>
/// <param name="RngSeed">Seed of the search for each adapter's direction.</param>
public sealed record ArrowSettings(int TopK = 3, double RouterTemperature = 1, ulong RngSeed = 0);

/// <summary>
/// Trained LoRA adapters between which each token chooses, at each module, by how far it goes along the direction that an adapter acts on most:
/// Arrow, <see href="https://arxiv.org/abs/2405.11157"/>. Nothing trains. What general adapters know can be taken out of the others first:
/// <see href="https://aclanthology.org/2025.acl-short.54/"/>.
/// </summary>
public sealed class ArrowAdapter : Adapter
{
    private ArrowAdapter(LoraConfig config, PretrainedModel model)
        : base(config, model)
    {
    }

    /// <summary>
    /// Routes between the adapters in <paramref name="taskFolders"/>, less the mean of those in <paramref name="generalFolders"/>. Throws
    /// <see cref="AdapterException"/> where they are not plain LoRA adapters of one rank on the same modules.
    /// </summary>
    public static ArrowAdapter Load(IReadOnlyList<string> taskFolders, IReadOnlyList<string> generalFolders, ArrowSettings settings, PretrainedModel model)
    {
        if (settings.TopK < 1 || settings.TopK > taskFolders.Count)
        {
            throw new AdapterException("top_k", $"{settings.TopK} must be from 1 to the {taskFolders.Count} adapters there are.");
        }

        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var tasks = taskFolders.Select(folder => Plain(folder, model)).ToList();
        var generals = generalFolders.Select(folder => Plain(folder, model)).ToList();
        try
        {
            var arrow = new ArrowAdapter((LoraConfig)tasks[0].Config, model);
            foreach (var (site, part) in tasks[0].Parts)
            {
                arrow.Attach(site, new ArrowPart(
                    (Projection)site, tasks.ConvertAll(task => At(task, site, (LoraProjection)part)), generals.ConvertAll(general => At(general, site, (LoraProjection)part)), settings));
            }

            return arrow;
        }
        finally
        {
            tasks.Concat(generals).ToList().ForEach(adapter => adapter.Dispose());
        }
    }

    /// <summary>The direction of each adapter at a module: [adapters, in].</summary>
    internal Tensor Prototypes(string path) => ((ArrowPart)Parts.Single(entry => entry.Site.Path == path).Part).Prototypes;

    private static LoraAdapter Plain(string folder, PretrainedModel model) =>
        AdapterFile.Load(folder, model) is LoraAdapter lora && lora.Parts.All(entry => entry.Part is LoraProjection { IsPlain: true })
            ? lora
            : throw new AdapterException("adapters", $"{Path.GetFileName(folder)} is not a plain LoRA adapter on linear layers, which Arrow needs.");

    private static LoraProjection At(LoraAdapter adapter, Site site, LoraProjection like) =>
        adapter.Parts.FirstOrDefault(entry => entry.Site == site).Part is LoraProjection part && part.Rank == like.Rank
            ? part
            : throw new AdapterException("adapters", $"Arrow needs adapters of one rank on the same modules; {site.Path} differs.");
}

/// <summary>The adapters at one module.</summary>
internal sealed class ArrowPart : AdditiveSiteAdapter
{
    private const int PowerIterations = 15;
    private const double Little = 1e-8;

    private readonly ArrowSettings _settings;
    private readonly Weight _prototypes; // (adapters, in)
    private readonly Weight _a; // (adapters, r, in)
    private readonly Weight _b; // (adapters, out, r), scaled

    public ArrowPart(Projection site, IReadOnlyList<LoraProjection> tasks, IReadOnlyList<LoraProjection> generals, ArrowSettings settings)
    {
        _settings = settings;
        var a = stack([.. tasks.Select(task => task.A)]);
        var b = stack([.. tasks.Select(task => task.B)]);
        if (generals.Count > 0)
        {
            a = a.Minus(stack([.. generals.Select(general => general.A)]).mean([0]));
            b = b.Minus(stack([.. generals.Select(general => general.B)]).mean([0]));
        }

        _prototypes = new Weight(tasks.Count, site.InFeatures);
        _a = new Weight(a.shape);
        _b = new Weight(b.shape);
        _prototypes.Set(stack([.. Enumerable.Range(0, tasks.Count).Select(i => Direction(a.select(0, i), b.select(0, i)))]));
        _a.Set(a.clone());
        _b.Set(b.mul(tensor(tasks.Select(task => (float)task.Scale).ToArray(), device: b.device).view(-1, 1, 1)));
    }

    public Tensor Prototypes => _prototypes.Value;

    public override IEnumerable<(string Name, Weight Weight)> State => [];

    public override IEnumerable<Weight> Derived => [_prototypes, _a, _b];

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var likeness = F.linear(x, Prototypes.to(x.dtype)).abs(); // [n, adapters]
        var (best, places) = likeness.topk(_settings.TopK, 1);
        var shares = full_like(likeness, TensorArithmetic.NegativeInfinity).scatter(1, places, best).Times(1 / _settings.RouterTemperature).softmax(1);
        var tokens = x.unsqueeze(0).expand(_a.Shape[0], -1, -1); // [adapters, n, in]
        var changes = tokens.bmm(_a.Value.to(x.dtype).transpose(1, 2)).bmm(_b.Value.to(x.dtype).transpose(1, 2)); // [adapters, n, out]
        return changes.mul(shares.t().unsqueeze(2)).sum([0]).MoveToOuterDisposeScope(); // [n, out]
    }

    public override void Initialize(Site site, Generator generator)
    {
    }

    public override Tensor Merge(Site site, Tensor weight) =>
        throw new NotSupportedException($"Arrow chooses by token, so it cannot be merged into the weight of {site.Path}. Serve it unmerged.");

    /// <summary>The first right singular vector of BA, by power iteration.</summary>
    private Tensor Direction(Tensor a, Tensor b)
    {
        using var generator = new Generator(_settings.RngSeed);
        var gram = b.t().mm(b); // [r, r]
        var v = Unit(randn(a.size(1), generator: generator).to(a.device));
        for (var i = 0; i < PowerIterations; i++)
        {
            v = Unit(a.t().mv(gram.mv(a.mv(v))));
        }

        return v;
    }

    private static Tensor Unit(Tensor vector) => vector.div(vector.norm().Plus(Little));
}
