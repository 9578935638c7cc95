using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>
/// Trained LoRA adapters between which each token chooses, at each module, by how far it goes along the direction that an adapter acts on most:
/// Arrow. Nothing trains. The file holds a LoRA that PEFT makes for the router and never uses; the adapters are copied beside it as they are.
/// </summary>
internal sealed class ArrowAdapter : Adapter
{
    private readonly ArrowConfig _config;
    private readonly string _folder;

    private ArrowAdapter(LoraConfig config, ArrowConfig arrow, string folder, IReadOnlyList<LoraAdapter> experts, PretrainedModel model)
        : base(config, model)
    {
        (_config, _folder) = (arrow, folder);
        foreach (var (site, part) in experts[0].Parts)
        {
            if (experts.Any(expert => expert.Parts.Count != experts[0].Parts.Count || At(expert, site)?.Rank != config.R))
            {
                throw new AdapterException("arrow_config", $"Arrow needs adapters of one rank on the same modules; {site.Path} differs.");
            }

            Attach(site, new ArrowPart((Projection)site, config.R, arrow));
        }
    }

    /// <summary>
    /// Routes between the adapters in the folders that <paramref name="config"/> leads to. Throws <see cref="AdapterException"/> where they are not
    /// plain LoRA adapters of one rank on the same modules.
    /// </summary>
    public static ArrowAdapter Create(LoraConfig config, PretrainedModel model)
    {
        if (config is not { ArrowConfig: { } arrow, ExpertFolder: { } folder })
        {
            throw new AdapterException("arrow_config", "Arrow needs the folders of its adapters beside its own. Make it by a job whose task_adapter_names are fine-tuned models.");
        }

        var experts = new List<LoraAdapter>();
        try
        {
            foreach (var expert in arrow.Experts)
            {
                experts.Add(Plain(AdapterFile.ReadConfig(Path.Combine(folder, expert.Folder)).CreateAdapter(model), expert));
            }

            var names = experts[0].Parts.Select(entry => entry.Site.Path.Split('.')[^1]).Distinct().Order(StringComparer.Ordinal).ToArray();
            if (config.TargetModules is { } given && given.Names?.Order(StringComparer.Ordinal).SequenceEqual(names) is not true)
            {
                throw new AdapterException("target_modules", $"Arrow's adapters are at {string.Join(", ", names)}. Leave target_modules out.");
            }

            return new ArrowAdapter(
                config with
                {
                    R = ((LoraProjection)experts[0].Parts[0].Part).Rank,
                    TargetModules = ModuleSelector.Of(names),
                    ArrowConfig = arrow with { TaskAdapterNames = arrow.TaskFolders, GksAdapterNames = arrow.GeneralFolders },
                }, arrow, folder, experts, model);
        }
        finally
        {
            experts.ForEach(expert => expert.Dispose());
        }
    }

    /// <summary>The direction of each adapter at a module: [adapters, in].</summary>
    internal Tensor Prototypes(string path) => ((ArrowPart)Parts.Single(entry => entry.Site.Path == path).Part).Prototypes;

    protected override void PrepareShared()
    {
        var loaded = _config.Experts.Select(expert => (LoraAdapter)AdapterFile.Load(Path.Combine(_folder, expert.Folder), Model)).ToList();
        try
        {
            foreach (var (site, part) in Parts)
            {
                var experts = loaded.ConvertAll(expert => At(expert, site)!);
                ((ArrowPart)part).Take(experts[.._config.TaskFolders.Count], experts[_config.TaskFolders.Count..]);
            }
        }
        finally
        {
            loaded.ForEach(expert => expert.Dispose());
        }
    }

    protected internal override void SaveBeside(string folder, string baseModelName)
    {
        foreach (var expert in _config.Experts.Select(expert => expert.Folder))
        {
            Directory.CreateDirectory(Path.Combine(folder, expert));
            foreach (var file in (string[])[AdapterFile.ConfigName, AdapterFile.WeightsName])
            {
                File.Copy(Path.Combine(_folder, expert, file), Path.Combine(folder, expert, file), overwrite: true);
            }
        }
    }

    private static LoraAdapter Plain(Adapter adapter, Expert expert)
    {
        if (adapter is LoraAdapter { Parts.Count: > 0 } lora && lora.Parts.All(entry => entry is { Site: Projection, Part: LoraProjection { IsPlain: true } }))
        {
            return lora;
        }

        adapter.Dispose();
        throw new AdapterException(expert.Field, $"'{expert.Name}' is not a plain LoRA adapter on linear layers, which Arrow needs.");
    }

    private static LoraProjection? At(LoraAdapter adapter, Site site) => adapter.Parts.FirstOrDefault(entry => entry.Site == site).Part as LoraProjection;
}

/// <summary>The adapters at one module.</summary>
internal sealed class ArrowPart : AdditiveSiteAdapter
{
    private const int PowerIterations = 15;
    private const double Little = 1e-8;

    private readonly ArrowConfig _config;
    private readonly Weight lora_A; // (r, in), PEFT's, unused
    private readonly Weight lora_B; // (out, r), PEFT's, unused
    private readonly Weight _prototypes; // (adapters, in)
    private readonly Weight _a; // (adapters, r, in)
    private readonly Weight _b; // (adapters, out, r), scaled

    public ArrowPart(Projection site, int r, ArrowConfig config)
    {
        var count = config.TaskFolders.Count;
        _config = config;
        lora_A = new Weight(r, site.InFeatures);
        lora_B = new Weight(site.OutFeatures, r);
        _prototypes = new Weight(count, site.InFeatures);
        _a = new Weight(count, r, site.InFeatures);
        _b = new Weight(count, site.OutFeatures, r);
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [("lora_A.weight", lora_A), ("lora_B.weight", lora_B)];

    public override IEnumerable<Weight> Derived => [_prototypes, _a, _b];

    /// <summary>Takes over what the adapters do here, less the mean of the general ones.</summary>
    public void Take(IReadOnlyList<LoraProjection> tasks, IReadOnlyList<LoraProjection> generals)
    {
        using var scope = NewDisposeScope();
        var a = stack([.. tasks.Select(task => task.A)]);
        var b = stack([.. tasks.Select(task => task.B)]);
        if (generals.Count > 0)
        {
            a = a.Minus(stack([.. generals.Select(general => general.A)]).mean([0]));
            b = b.Minus(stack([.. generals.Select(general => general.B)]).mean([0]));
        }

        _prototypes.Set(stack([.. Enumerable.Range(0, tasks.Count).Select(i => Direction(a.select(0, i), b.select(0, i)))]));
        _a.Set(a.clone());
        _b.Set(b.mul(tensor(tasks.Select(task => (float)task.Scale).ToArray(), device: b.device).view(-1, 1, 1)));
    }

    public Tensor Prototypes => _prototypes.Value;

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var likeness = F.linear(x, Prototypes.to(x.dtype)).abs(); // [n, adapters]
        var (best, places) = likeness.topk(_config.TopK, 1);
        var shares = full_like(likeness, TensorArithmetic.NegativeInfinity).scatter(1, places, best).Times(1 / _config.RouterTemperature).softmax(1);
        var tokens = x.unsqueeze(0).expand(_a.Shape[0], -1, -1); // [adapters, n, in]
        var changes = tokens.bmm(_a.Value.to(x.dtype).transpose(1, 2)).bmm(_b.Value.to(x.dtype).transpose(1, 2)); // [adapters, n, out]
        return changes.mul(shares.t().unsqueeze(2)).sum([0]).MoveToOuterDisposeScope(); // [n, out]
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        lora_A.Kaiming(((Projection)site).InFeatures, generator, device);
        lora_B.Zeros(device);
    }

    public override Tensor Merge(Site site, Tensor weight) =>
        throw new NotSupportedException($"Arrow chooses by token, so it cannot be merged into the weight of {site.Path}. Serve it unmerged.");

    /// <summary>The first right singular vector of BA, by power iteration.</summary>
    private Tensor Direction(Tensor a, Tensor b)
    {
        using var generator = new Generator((ulong)(_config.RngSeed ?? 0));
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
