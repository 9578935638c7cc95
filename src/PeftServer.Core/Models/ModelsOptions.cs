using System.ComponentModel.DataAnnotations;

namespace PeftServer.Core.Models;

/// <summary>Section <c>Models</c>: the base models.</summary>
public sealed class ModelsOptions
{
    public const string Section = "Models";

    /// <summary>Each folder in it that holds a config.json is a base model by its name. Default: <c>models</c> in the data folder.</summary>
    [Required]
    public string Root { get; set; } = "";

    /// <summary>The third part of a fine-tuned model's name.</summary>
    [RegularExpression("[a-z0-9-]{1,64}")]
    public string Organization { get; set; } = "peftserver";
}
