using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace PeftServer.Core.Data.Migrations
{
    /// <inheritdoc />
    public partial class JobStartingModel : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<string>(
                name: "starting_model",
                table: "jobs",
                type: "text",
                nullable: true);
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropColumn(
                name: "starting_model",
                table: "jobs");
        }
    }
}
