using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>Chooses the part for each site, by its kind and by the variant that the settings name.</summary>
internal static class LoraParts
{
    public static MethodParts Create(LoraConfig config, IReadOnlyList<Site> sites, PretrainedModel model)
    {
        var invocations = config.AloraInvocationTokens is { } tokens ? new Invocations(tokens) : null;
        return new([.. sites.Select(site => Part(config, site, model, invocations))]);
    }

    private static SiteAdapter Part(LoraConfig config, Site site, PretrainedModel model, Invocations? invocations) => site switch
    {
        Projection head when invocations is not null && head.Path == model.OutputHead => throw new AdapterException(
            "alora_invocation_tokens", $"{head.Path} sees hidden states without their tokens. Leave it out of target_modules."),
        Projection projection => Part(config, projection, invocations),
        Embedding embedding when config.UseDora => new DoraEmbedding(config, embedding),
        Embedding embedding => new LoraEmbedding(config, embedding),
        _ => throw new AdapterException("target_modules", $"{site.Path} is neither a linear layer nor an embedding."),
    };

    private static LoraProjection Part(LoraConfig config, Projection site, Invocations? invocations) => config switch
    {
        _ when invocations is not null => new AloraProjection(config, site, invocations),
        { UseDora: true } => new DoraProjection(config, site),
        { KasaConfig: not null } => new KasaProjection(config, site),
        { MontecloraConfig: not null } => new MontecloraProjection(config, site),
        { UseBdlora: not null } => BlockDiagonalProjection.Create(config, site),
        { UseQalora: true } => new QaLoraProjection(config, site),
        { VeloraConfig: not null } => new VeloraProjection(config, site),
        _ => new LoraProjection(config, site),
    };
}
