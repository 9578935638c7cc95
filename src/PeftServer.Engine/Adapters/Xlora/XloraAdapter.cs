using System.Globalization;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Xlora;

/// <summary>
/// The experts, which no sequence uses by themselves, the classifier, and a part at every module that an expert adapts. The first part that
/// needs the mixes of a batch runs the first pass.
/// </summary>
internal sealed class XloraAdapter : Adapter
{
    private readonly XloraConfig _config;
    private readonly CausalLanguageModel _model;
    private readonly List<Adapter> _experts = [];
    private readonly XloraClassifier _classifier;

    public XloraAdapter(XloraConfig config, PretrainedModel model)
        : base(config, model)
    {
        _config = config;
        _model = model as CausalLanguageModel ?? throw new AdapterException("peft_type", $"XLORA is not supported on this {model.Config.ModelType}: it needs a causal language model.");
        for (var i = 0; i < config.Adapters.Count; i++)
        {
            _experts.Add(Expert(i));
        }

        var sites = model.Sites().Where(site => _experts.Any(expert => expert.Parts.Any(entry => entry.Site == site))).ToList();
        _classifier = new XloraClassifier(config, _experts.Count, sites.Count);
        foreach (var (key, weight) in Shared)
        {
            weight.Path = key;
        }

        foreach (var (site, layer) in sites.Select((site, layer) => (site, layer)))
        {
            Attach(site, new XloraPart(this, [.. _experts.Select(expert => PartAt(expert, site))], layer));
        }
    }

    /// <summary>Factor of what the experts add.</summary>
    public double Weight => _config.GlobalScalingWeight;

    protected override IEnumerable<(string Key, Weight Weight)> Shared => _classifier.Weights.Select(entry => ($"base_model.internal_xlora_classifier.{entry.Name}", entry.Weight));

    protected override IEnumerable<(string Key, Weight Weight)> SharedTraining =>
        Shared.Concat(_experts.SelectMany((expert, i) => expert.State.Select(state => ($"experts.{i}.{state.Key}", state.Weight))));

    /// <summary>The mixes of the experts for the tokens of a run, [n, layers, experts]; made once for a batch.</summary>
    public Tensor Mixes(ForwardBatch batch, AdapterRun run) => batch.Once((this, run.Start), () =>
    {
        using var scope = NewDisposeScope();
        Tensor hidden;
        using (no_grad())
        {
            using var first = batch.FirstPass(run, _config.ScalingPassValue == 0 ? [] : [this]);
            if (_config.ScalingPassValue != 0)
            {
                first.Once((this, 0), () => _classifier.Constant(run.Count, _model)); // the run is the whole of the first pass
            }

            hidden = _model.Hidden(first); // [n, hidden]
        }

        return _classifier.Mixes(hidden, batch.Dropout).MoveToOuterDisposeScope();
    });

    /// <summary>The mix of a token at one adapted module, the best experts alone where the settings say so: [n, experts].</summary>
    public Tensor MixAt(Tensor mixes, int layer) => _classifier.Choose(mixes.select(1, layer));

    public override void MergeAndUnload() =>
        throw new NotSupportedException("XLORA mixes its experts anew for every token, so it cannot be merged. Serve it unmerged.");

    protected internal override void SaveBeside(string folder, string baseModelName)
    {
        for (var i = 0; i < _experts.Count; i++)
        {
            AdapterFile.Save(_experts[i], FolderOf(folder, i), baseModelName);
        }
    }

    public override void Dispose()
    {
        base.Dispose();
        _experts.ForEach(expert => expert.Dispose());
    }

    protected override void InitializeShared(Generator generator) => _classifier.Initialize(generator, Model.Device);

    protected override void PrepareShared()
    {
        for (var i = 0; i < _experts.Count; i++)
        {
            if (_experts[i].State.Any(entry => !entry.Weight.IsLoaded))
            {
                AdapterFile.Fill(_experts[i], FolderOf(_config.ExpertFolder!, i));
            }
        }
    }

    private static string FolderOf(string folder, int expert) => Path.Combine(folder, expert.ToString(CultureInfo.InvariantCulture));

    private static AdditiveSiteAdapter? PartAt(Adapter expert, Site site) => expert.Parts.Where(entry => entry.Site == site).Select(entry => entry.Part).SingleOrDefault() switch
    {
        null => null,
        AdditiveSiteAdapter part => part,
        _ => throw new AdapterException("adapters", $"An expert changes {site.Path} by more than adding to it. X-LoRA takes LoRA without use_dora or modules_to_save."),
    };

    private Adapter Expert(int number)
    {
        var config = AdapterFile.ReadConfig(FolderOf(_config.ExpertFolder!, number)) as LoraConfig
            ?? throw new AdapterException("adapters", $"Expert {number} is no LoRA adapter. X-LoRA mixes LoRA adapters.");
        var expert = config.CreateAdapter(Model);
        foreach (var (_, weight) in expert.State)
        {
            weight.Trainable &= _config.UseTrainableAdapters;
        }

        return expert;
    }
}
